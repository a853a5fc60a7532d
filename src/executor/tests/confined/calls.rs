//! System calls that undo a confinement, made in earnest.

use std::path::Path;

use super::super::attempts::tries;
use super::super::harness::Executor;
use crate::sys::attempt::REFUSED;

/// The lines of a profile that may mount.
const MOUNTER: &str = "run_as = root\ncaps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes\n";
/// Where a run would leave a mark if it could.
const MARK: &str = "/etc/forbidden";

fn kernel_setting(name: &str) -> String {
    let value = std::fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
    value.trim().to_owned()
}

#[test]
fn namespaces_cannot_be_made_unless_the_filter_is_off() {
    let text = "unshare -U true && echo made; unshare -Urm true && echo mounted";
    let executor = Executor::root("run_as = nobody");
    assert!(executor.says(text).contains("Operation not permitted"));
    if kernel_setting("user/max_user_namespaces") != "0" {
        let twin = Executor::root("run_as = nobody\nsyscalls = off");
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

#[test]
fn calls_that_attack_others_are_refused_without_a_capability_too() {
    let calls = ["call ptrace", "call add_key", "call keyctl"];
    assert_eq!(tries(&Executor::root("run_as = root"), &calls), ["EPERM"; 3]);
    assert_eq!(tries(&Executor::root("run_as = root\nsyscalls = off"), &calls), ["done"; 3]);
}

#[test]
fn a_script_has_a_keyring_of_its_own_and_none_of_the_executors_keys() {
    let executor = Executor::root("run_as = root\nsyscalls = off");
    let theirs = format!("executor-{}", executor.pid());
    let keys = std::fs::read_to_string("/proc/keys").unwrap();
    assert!(keys.contains(&format!("{theirs}: 1")), "the executor holds it: {keys}");
    let read = format!("read-key {theirs}");
    assert_eq!(tries(&executor, &[&read, "hold-key mine", "read-key mine"]), ["ENOKEY", "done", "done"]);
    assert_eq!(tries(&executor, &["read-key mine", &read]), ["ENOKEY"; 2], "nor those of another run");
    // The filter refuses all of it.
    let filtered = Executor::root("run_as = root");
    assert_eq!(tries(&filtered, &["read-key mine", "hold-key mine"]), ["EPERM"; 2]);
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
    // Who may mount finds the calls refused.
    let profile = format!("{MOUNTER}writable = {{}}/open\n");
    assert_eq!(tries(&Executor::root(&profile), &ways), ["EPERM", "EROFS", "EPERM", "EPERM"]);
    // Without the filter they work, since Landlock has no say in them. It has in what is written behind them.
    let executor = Executor::root(&format!("{profile}syscalls = off"));
    assert_eq!(tries(&executor, &ways), ["done", "EACCES", "done", "EACCES"]);
    let open = executor.path("open/x");
    assert_eq!(tries(&executor, &["loosen /", &format!("write {}", open.display())]), ["done", "done"]);
    assert_eq!(std::fs::read(&open).unwrap(), b"x");
    // Who may not mount has the kernel's own word.
    let executor = Executor::root("run_as = root\nwritable = {}/open\nsyscalls = off");
    assert_eq!(tries(&executor, &ways), ["EPERM", "EROFS", "EPERM", "EPERM"]);
    assert!(!Path::new(MARK).exists());
}
