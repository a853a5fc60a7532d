//! System calls that undo a confinement, made in earnest.

use std::path::Path;

use super::super::attempts::tries;
use super::super::harness::Executor;
use crate::sys::attempt::{BOUNDS, REFUSED, SET_ID, SNAPSHOTS};
use crate::wire::outcome::Outcome;
use std::os::unix::fs::MetadataExt as _;

/// The lines of a profile that may mount.
const MOUNTER: &str = "run_as = root\ncaps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes\n";
/// Where a run would leave a mark if it could.
const MARK: &str = "/etc/forbidden";

fn kernel_setting(name: &str) -> String {
    let value = std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    value.trim().to_owned()
}

#[test]
fn namespaces_cannot_be_made_unless_the_profile_may_undo_itself() {
    let text = "unshare -U true && echo made; unshare -Urm true && echo mounted";
    for profile in ["run_as = nobody", "run_as = nobody\nsyscalls = off", "run_as = root\nsyscalls = off"] {
        let said = Executor::root(profile).says(text);
        assert!(said.contains("Operation not permitted") && !said.contains("made"), "{profile}: {said}");
    }
    if kernel_setting("user/max_user_namespaces") != "0" {
        let twin = Executor::root("run_as = nobody\nsyscalls = off\nallow_dangerous_caps = yes");
        assert_eq!(twin.says("unshare -U true && echo made"), "made\n");
    }
}

#[test]
fn calls_that_attack_the_kernel_or_others_are_refused_unless_the_filter_is_off() {
    // With every capability that the kernel itself might ask for.
    let profile = "run_as = root\ncaps = CAP_BPF,CAP_SYS_PTRACE,CAP_SYS_ADMIN\nallow_dangerous_caps = yes\n";
    let calls = REFUSED.map(|name| format!("call {name}"));
    let calls = calls.each_ref().map(String::as_str);
    let executor = Executor::root(profile);
    assert_eq!(tries(&executor, &calls), ["EPERM"; REFUSED.len()], "{REFUSED:?}");
    let twin = Executor::root(&format!("{profile}syscalls = off"));
    for (call, answer) in calls.into_iter().zip(tries(&twin, &calls)) {
        // A kernel may be built without one, or be told to keep it from everybody.
        let kept = call == "call unshare" && kernel_setting("user/max_user_namespaces") == "0"
            || call == "call io_uring_setup" && kernel_setting("kernel/io_uring_disabled") == "2";
        assert!(answer == "done" || answer == "ENOSYS" || kept, "{call}: {answer}");
    }
}

/// A script of root's needs no capability to move what is above the agent's own files in a namespace of its own, and none to take
/// what a process of the same account has open, whose descriptor every unix socket gives it; nor to hold up who reads a file.
#[test]
fn calls_that_leave_the_bounds_of_a_run_are_refused_unless_the_profile_may_undo_itself() {
    let calls = BOUNDS.map(|(name, _)| format!("call {name}"));
    let calls = calls.each_ref().map(String::as_str);
    for profile in ["run_as = root", "run_as = root\nsyscalls = off", "run_as = bin\nnetwork = no\nsyscalls = off"] {
        assert_eq!(tries(&Executor::root(profile), &calls), BOUNDS.map(|(_, answer)| answer), "{profile}");
    }
    let twin = Executor::root("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes");
    for (call, answer) in calls.into_iter().zip(tries(&twin, &calls)) {
        let expected: &[&str] = match call {
            // It is told nothing; and one that is in a namespace has no need to be root in it to go there.
            "call clone3" => &["EINVAL"],
            // And what a parent has of another account, or has already, it is not given.
            "call setns" | "call keyring-to-parent" => &["done", "EPERM"],
            // A kernel from before it.
            "call namespace-of-pidfd" => &["done", "ENOTTY", "EINVAL"],
            "call unshare" if kernel_setting("user/max_user_namespaces") == "0" => &["ENOSPC"],
            _ => &["done"],
        };
        assert!(expected.contains(&answer.as_str()), "{call}: {answer}");
    }
}

/// A copy of a subvolume shows what mounts hide and keep in it, and a descriptor of the read-only tree is enough to make one in a
/// writable place. Every file system is asked in the same way; the one that is asked here has no such call.
#[test]
fn no_copy_is_made_of_a_subvolume_unless_the_profile_may_undo_itself() {
    let calls = SNAPSHOTS.map(|name| format!("call {name}"));
    let calls = calls.each_ref().map(String::as_str);
    for profile in ["run_as = root\nwritable = {}/open", "run_as = bin", "run_as = root\nsyscalls = off"] {
        assert_eq!(tries(&Executor::root(profile), &calls), ["EPERM"; SNAPSHOTS.len()], "{profile}");
    }
    let twin = Executor::root("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes");
    assert_eq!(tries(&twin, &calls), ["ENOTTY"; SNAPSHOTS.len()]);
}

#[test]
fn a_lease_on_a_directory_is_refused_as_one_on_a_file() {
    for profile in ["run_as = root", "run_as = root\nsyscalls = off"] {
        assert_eq!(tries(&Executor::root(profile), &["call delegation"]), ["EPERM"], "{profile}");
    }
    let twin = Executor::root("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes");
    let answer = tries(&twin, &["call delegation"]).remove(0);
    // A kernel from before it.
    assert!(["EFAULT", "EINVAL"].contains(&answer.as_str()), "{answer}");
}

#[test]
fn root_without_a_capability_mounts_nothing_in_its_run_without_any_filter_either() {
    let profile = "run_as = root\nsyscalls = off\nallow_dangerous_caps = yes";
    for more in ["", "\nwritable = {}/open"] {
        let said = Executor::root(&format!("{profile}{more}")).says(
            "mount -t tmpfs x /mnt && echo mounted; mount -o remount,bind,rw /proc && echo remounted; umount /proc && echo off",
        );
        assert!(!said.contains("mounted\n") && !said.contains("remounted\n") && !said.contains("off\n"), "{said}");
    }
}

#[test]
fn calls_that_attack_others_are_refused_without_a_capability_too() {
    let calls = ["call ptrace", "call add_key", "call keyctl"];
    assert_eq!(tries(&Executor::root("run_as = root"), &calls), ["EPERM"; 3]);
    // Keys outlast a run, and leave its bounds.
    assert_eq!(tries(&Executor::root("run_as = root\nsyscalls = off"), &calls), ["done", "EPERM", "EPERM"]);
    let twin = Executor::root("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes");
    assert_eq!(tries(&twin, &calls), ["done"; 3]);
}

#[test]
fn a_script_has_a_keyring_of_its_own_and_none_of_the_executors_keys() {
    let executor = Executor::root("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes");
    let theirs = format!("executor-{}", executor.pid());
    let keys = std::fs::read_to_string("/proc/keys").unwrap();
    assert!(keys.contains(&format!("{theirs}: 1")), "the executor holds it: {keys}");
    let read = format!("read-key {theirs}");
    assert_eq!(tries(&executor, &[&read, "hold-key mine", "read-key mine"]), ["ENOKEY", "done", "done"]);
    assert_eq!(tries(&executor, &["read-key mine", &read]), ["ENOKEY"; 2], "nor those of another run");
    // The filter refuses all of it.
    for profile in ["run_as = root", "run_as = root\nsyscalls = off"] {
        let filtered = Executor::root(profile);
        assert_eq!(tries(&filtered, &["read-key mine", "hold-key mine"]), ["EPERM"; 2], "{profile}");
    }
}

#[test]
fn a_capability_to_mount_does_not_undo_the_tree() {
    let profile = format!("{MOUNTER}writable = {{}}/open\n");
    let text = "mount -o remount,bind,rw / && echo remounted; umount /tmp && echo uncovered; \
        mount -t tmpfs x /mnt && echo mounted; echo x > /etc/forbidden; echo $?";
    // Landlock alone, without the filter, and both.
    for syscalls in ["default", "off"] {
        let said = Executor::root(&format!("{profile}syscalls = {syscalls}")).says(text);
        assert!(!said.contains("mounted\n") && !said.contains("uncovered") && !said.ends_with("\n0\n"), "{said}");
    }
    assert!(!Path::new(MARK).exists());
    // And the twin, which has neither: such a profile does what it says.
    let twin = Executor::root(&format!("{MOUNTER}syscalls = off"));
    assert_eq!(twin.says("mount -t tmpfs x /mnt && echo mounted"), "mounted\n");
}

#[test]
fn a_tree_that_is_made_writable_again_by_its_descriptor_is_not_written_to() {
    let ways = ["loosen /", "write /etc/forbidden", "loosen-copy /etc", "make-in-copy /etc forbidden"];
    // Without the filter it is the kernel's own word: what is locked stays as it is, whoever asks.
    for who in [MOUNTER, "run_as = root\n"] {
        for syscalls in ["default", "off"] {
            let executor = Executor::root(&format!("{who}writable = {{}}/open\nsyscalls = {syscalls}"));
            assert_eq!(tries(&executor, &ways), ["EPERM", "EROFS", "EPERM", "EPERM"], "{who} {syscalls}");
            let open = executor.path("open/x");
            assert_eq!(tries(&executor, &["loosen /", &format!("write {}", open.display())]), ["EPERM", "done"]);
            assert_eq!(std::fs::read(&open).unwrap(), b"x");
        }
    }
    assert!(!Path::new(MARK).exists());
}

/// The words that give the bits of set-user-ID and set-group-ID to a file in every way there is, one each.
fn ways() -> Vec<String> {
    // It is there for those that do not make it, and away for those that do.
    SET_ID.iter().map(|name| format!("call {name}")).collect()
}

/// How each way ends under a profile, and the bits that the file has then on the host.
fn set_ids(profile: &str) -> Vec<(String, String, u32)> {
    let executor = Executor::root(&format!("{profile}\nworking_directory = {{}}/open"));
    let file = executor.path("open/set-id");
    let ends = ways().into_iter().map(|way| {
        let _ = std::fs::remove_file(&file);
        if way.contains("chmod") {
            executor.says("echo x > {}/open/set-id; chmod 755 {}/open/set-id");
        }
        let answer = tries(&executor, &[&way]).remove(0);
        let bits = std::fs::metadata(&file).map_or(0, |facts| facts.mode() & 0o6000);
        (way, answer, bits)
    });
    ends.collect()
}

#[test]
fn no_script_leaves_a_set_user_id_program_behind() {
    for profile in [
        "run_as = bin\ncaps = CAP_SETUID\nwritable = {}/open",
        "run_as = bin\ncaps = CAP_CHOWN,CAP_FOWNER,CAP_FSETID\nwritable = {}/open",
        "run_as = root\nwritable = {}/open",
        "run_as = root\nwritable = {}/open\nsyscalls = off",
        "run_as = bin\ncaps = CAP_SETUID\nsyscalls = off",
        "run_as = bin",
    ] {
        for (way, answer, bits) in set_ids(profile) {
            // A kernel from before it does not know it.
            assert!(
                answer == "EPERM" || way.ends_with("fchmodat2") && answer == "ENOSYS",
                "{profile}: {way}: {answer}"
            );
            assert_eq!(bits, 0, "{profile}: {way}");
        }
        let executor = Executor::root(profile);
        let file = executor.path("open/x");
        let words = [format!("fchmod {} 4755", file.display()), format!("fchmod {} 0755", file.display())];
        let words = words.each_ref().map(String::as_str);
        assert_eq!(tries(&executor, &words), ["EPERM", "done"], "{profile}");
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o755, "{profile}");
        let hidden = Executor::root(&format!("{profile}\nworking_directory = {{}}/open"));
        assert_eq!(tries(&hidden, &["call openat2"]), ["ENOSYS"], "{profile}");
    }
}

#[test]
fn a_shell_of_roots_is_not_left_where_others_find_it() {
    for profile in ["run_as = bin\ncaps = CAP_SETUID\nwritable = {}/open", "run_as = root\nwritable = {}/open"] {
        let executor = Executor::root(profile);
        let shell = executor.path("open/shell");
        let leave = format!("leave-shell-of-root {}", shell.display());
        assert_eq!(tries(&executor, &[&leave]), ["EPERM"], "{profile}");
        let facts = std::fs::metadata(&shell).unwrap();
        assert_eq!((facts.uid(), facts.mode() & 0o7777), (0, 0o755), "{profile}");
        // And the twin: a program without the bits.
        let said = executor.says("cp /bin/sh {}/open/other && chmod 555 {}/open/other && {}/open/other -c 'echo runs'");
        assert_eq!(said, "runs\n", "{profile}");
    }
}

#[test]
fn a_set_user_id_program_of_the_hosts_that_a_script_writes_to_is_none_any_more() {
    for profile in [
        "run_as = root\nwritable = {}/open",
        "run_as = root\nwritable = {}/open\nsyscalls = off",
        "run_as = root\ncaps = CAP_CHOWN,CAP_FOWNER\nwritable = {}/open",
        "run_as = root",
    ] {
        let executor = Executor::root(profile);
        let bits = |file: &Path| std::fs::metadata(file).unwrap().mode() & 0o7777;
        for text in ["echo x >> $0", ": > $0", "cp /bin/true $0"] {
            let file = executor.set_user_id("open/program", "/bin/grep");
            assert_eq!(bits(&file), 0o4755);
            let (outcome, _, errors) = executor.shell(text, &[file.to_str().unwrap()]).finish();
            assert_eq!((outcome, errors.as_str()), (Outcome::Exited { code: 0 }, ""), "{profile}: {text}");
            assert_eq!(bits(&file), 0o755, "{profile}: {text}");
        }
        // And the twin, which it only reads.
        let file = executor.set_user_id("open/other", "/bin/grep");
        assert_eq!(executor.says(&format!("head -c 1 {} | wc -c", file.display())), "1\n");
        assert_eq!(bits(&file), 0o4755, "{profile}");
    }
}

#[test]
fn package_managers_and_profiles_that_may_undo_themselves_give_files_any_bits() {
    for profile in [
        "run_as = root",
        "run_as = root\ncaps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes\nsyscalls = off\nwritable = {}/open",
    ] {
        for (way, answer, bits) in set_ids(profile) {
            assert!(answer == "done" || way.ends_with("fchmodat2") && answer == "ENOSYS", "{profile}: {way}: {answer}");
            assert!(answer != "done" || bits == 0o6000, "{profile}: {way}: {bits:o}");
        }
    }
}

#[test]
fn an_ordinary_account_shares_its_directories_with_its_group() {
    let executor = Executor::root("run_as = bin\nwritable = {}/open");
    let said = executor.says("mkdir {}/open/shared && chmod 2775 {}/open/shared && stat -c %a {}/open/shared");
    assert_eq!(said, "2775\n");
    let executor = Executor::root("run_as = root\nwritable = {}/open");
    assert!(executor.says("mkdir {}/open/shared && chmod 2775 {}/open/shared").contains("Operation not permitted"));
}
