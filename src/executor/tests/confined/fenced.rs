//! What lies around the agent's own places: nobody puts something else there, and nobody comes to them by another way.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::super::attempts::tries;
use super::super::harness::{Executor, until};
use crate::sys::fdpass;
use crate::wire::control::Reloaded;
use crate::wire::outcome::Outcome;

/// Accounts with rights enough to put another tree in the place of the agent's, if nothing else kept them from it.
const STRONG: [&str; 4] = [
    "run_as = root",
    "run_as = root\nsyscalls = off",
    "run_as = bin\ncaps = CAP_DAC_OVERRIDE,CAP_CHOWN,CAP_FOWNER",
    "run_as = bin\ncaps = CAP_SETUID,CAP_SETGID,CAP_FOWNER,CAP_DAC_OVERRIDE",
];

/// Whether the configuration is still the one that was there.
fn is_untouched(executor: &Executor) -> bool {
    fs::read_to_string(executor.path("conf/agent.conf")).is_ok_and(|text| text.starts_with("port = 1\n"))
}

#[test]
fn no_directory_above_a_hidden_place_is_moved_by_anybody() {
    for profile in STRONG {
        let executor = Executor::root(profile);
        let place = executor.path("").display().to_string();
        let place = place.trim_end_matches('/');
        let said = executor.says(&format!(
            "mv {place} {place}-aside && mkdir -p {place}/conf && echo forged > {place}/conf/agent.conf
             rmdir {place}; rm -rf {place}/conf; mkdir {place}-other && mv -T {place}-other {place}; rmdir {place}-other"
        ));
        assert!(said.matches("busy").count() >= 2, "{profile}: {said}");
        assert!(is_untouched(&executor) && !Path::new(&format!("{place}-aside")).exists(), "{profile}: {said}");
        // What lies beside is the script's to move.
        let said = executor.says(&format!(
            "mv {place}/other {place}/open/twin && mkdir {place}-new && rmdir {place}-new && echo moved"
        ));
        assert_eq!(said, "moved\n", "{profile}");
    }
}

#[test]
fn no_link_on_the_way_to_a_hidden_place_is_replaced_and_nothing_above_where_it_leads() {
    for profile in STRONG {
        let executor = Executor::root(profile);
        fs::create_dir_all(executor.path("open/real/runs")).unwrap();
        symlink("real", executor.path("open/link")).unwrap();
        executor.lead("conf-runs", executor.path("open/link/runs"));
        symlink("real", executor.path("open/free")).unwrap();
        let said = executor.says(
            "cd {}/; rm -f conf-runs; mv conf-runs x; rm -f open/link; mv open/real open/y; mv open open2; ls -A open/real/runs
             ls -d conf-runs open/link open/real; rm open/free && echo removed",
        );
        assert_eq!(said.matches("busy").count(), 5, "{profile}: {said}");
        assert!(said.ends_with("conf-runs\nopen/link\nopen/real\nremoved\n"), "{profile}: {said}");
    }
}

#[test]
fn what_decides_and_is_no_secret_can_be_read_and_not_changed() {
    for profile in STRONG {
        let executor = Executor::root(profile);
        let program = std::env::current_exe().unwrap();
        let program = program.display();
        let said = executor.says(&format!(
            "head -c 1 {program} | wc -c; mv {program} {program}-x; rm -f {program}; chmod 700 {program}"
        ));
        assert!(said.starts_with("1\n") && said.matches("busy").count() == 2, "{profile}: {said}");
        assert_eq!(said.matches("Read-only").count(), 1, "{profile}: {said}");
        // The CA's certificate and the key, each behind a link out of the agent's directory.
        for (name, to) in [("ca", "open/deep/ca"), ("key", "other/key")] {
            executor.write(to, "as it was\n");
            symlink(executor.path(to), executor.path("conf").join(name)).unwrap();
        }
        let said = executor.says(
            "cd {}/; cat open/deep/ca; touch open/deep/ca; rm -f open/deep/ca; mv open/deep x; mv open x; cat other/key
             rm -f other/key; mv other x; echo free > open/deep/free && cat open/deep/free",
        );
        assert!(said.starts_with("as it was\n") && said.ends_with("free\n"), "{profile}: {said}");
        assert_eq!((said.matches("as it was").count(), said.matches("busy").count()), (1, 5), "{profile}: {said}");
    }
}

/// A program that does this before it becomes its arguments, with mounts of its own and `$D` the test's directory.
pub(super) fn mounting(words: &str) -> [String; 6] {
    let words = format!("D=$CTRL_EXEC_TEST_EXECUTOR; {words}; exec \"$@\"");
    ["unshare", "--mount", "sh", "-ec", &words, "sh"].map(str::to_owned)
}

#[test]
fn a_hidden_place_is_hidden_wherever_a_mount_shows_it() {
    let whole = mounting(
        "mkdir $D/alias $D/part $D/again; echo secret > $D/conf/agent.key
         mount --bind $D $D/alias; mount --bind $D/conf $D/part
         mount -t tmpfs x $D/conf-runs; mkdir $D/conf-runs/job; echo secret > $D/conf-runs/job/out
         mount --bind $D/conf-runs $D/again; mkdir $D/inner; mount --bind $D/conf-runs/job $D/inner",
    );
    for profile in STRONG {
        let executor = Executor::root_under(&whole.each_ref().map(String::as_str), profile);
        let said = executor.says(
            "cd {}/; cat conf/agent.key alias/conf/agent.key part/agent.key conf-runs/job/out again/job/out inner/out
             echo forged > alias/conf/agent.conf; mv alias/conf alias/x; mv alias/alias alias/y
             ls alias; echo x > alias/other/x && cat other/x",
        );
        assert!(!said.contains("secret") && said.contains("other\n") && said.ends_with("x\n"), "{profile}: {said}");
        assert!(is_untouched(&executor), "{profile}");
    }
}

#[test]
fn no_directory_above_a_hidden_place_is_moved_where_a_mount_shows_it_besides() {
    let shown = mounting(
        "rmdir $D/conf-runs; mkdir -p $D/open/zone/runs $D/open/alias $D/open/zz
         ln -s $D/open/zone/runs $D/conf-runs; for name in alias zz; do mount --bind $D/open/zone $D/open/$name; done",
    );
    for profile in STRONG {
        let executor = Executor::root_under(&shown.each_ref().map(String::as_str), profile);
        let said =
            executor.says("cd {}/open; mv zone aside; mv alias/runs alias/x; mv zz y; ls; rmdir deep && echo removed");
        assert_eq!(said.matches("busy").count(), 3, "{profile}: {said}");
        assert!(said.ends_with("alias\ndeep\nzone\nzz\nremoved\n"), "{profile}: {said}");
    }
}

#[test]
fn a_writable_path_that_shows_what_is_hidden_is_refused() {
    let alias = mounting("mkdir $D/alias $D/free; mount --bind $D $D/alias; mount --bind $D/other $D/free");
    let alias = alias.each_ref().map(String::as_str);
    for writable in ["{}/alias", "{}/alias/conf", "{}/alias/conf/x"] {
        let executor = Executor::spawn_root(&alias, &format!("run_as = root\nwritable = {writable}"));
        let Reloaded::Failed { text } = executor.answer() else { panic!("{writable} is not refused") };
        assert!(text.contains("reaches into") && text.contains("agent.conf is"), "{text}");
    }
    let twin = Executor::root_under(&alias, "run_as = root\nwritable = {}/free:{}/alias/open");
    assert_eq!(twin.says("echo x > {}/free/x; echo y > {}/alias/open/y; cat {}/free/x {}/alias/open/y"), "x\ny\n");
}

#[test]
fn a_file_of_the_agents_own_with_another_name_refuses_scripts_that_could_come_to_it_there() {
    let one = &STRONG[..1];
    // A set-user-ID program of the host's is root for it.
    let becoming = &["run_as = bin\nno_new_privileges = no"][..];
    for (own, profiles) in
        [("key", &STRONG[..]), ("key", becoming), ("agent.conf", one), ("scripts.conf", one), ("crt", one), ("ca", one)]
    {
        let linked = mounting(&format!("umask 077; echo '# x' >> $D/conf/{own}; ln $D/conf/{own} $D/other/name"));
        let linked = linked.each_ref().map(String::as_str);
        for profile in profiles {
            let executor = Executor::root_under(&linked, profile);
            let Outcome::Refused(refusal) = executor.shell("echo ran", &[]).outcome() else {
                panic!("{own} of {profile} is not refused")
            };
            let place = executor.path("conf").join(own).display().to_string();
            assert_eq!(refusal.code(), "own-linked");
            assert!(refusal.text().contains(&format!("{place} has another name")), "{refusal:?}");
        }
    }
    // Whoever has no such rights is kept away by the file's mode.
    let linked = mounting("umask 077; echo secret > $D/conf/key; ln $D/conf/key $D/other/name");
    let twin = Executor::root_under(&linked.each_ref().map(String::as_str), "run_as = bin");
    let said = twin.says("cat {}/other/name; echo ran");
    assert!(said.contains("Permission denied") && said.ends_with("ran\n"), "{said}");
    // Another name in the directory that is hidden is hidden with it.
    let beside = mounting("echo secret > $D/conf/key; ln $D/conf/key $D/conf/.tmp-key");
    let twin = Executor::root_under(&beside.each_ref().map(String::as_str), one[0]);
    let said = twin.says("cat {}/conf/key {}/conf/.tmp-key; echo ran");
    assert!(!said.contains("secret") && said.ends_with("ran\n"), "{said}");
}

/// Whether the first process of a process namespace is anywhere below this one.
fn has_inits(above: Pid) -> bool {
    let own = fs::read_to_string(format!("/proc/{above}/status")).unwrap_or_default();
    // One in a namespace of its own has a number there besides those that it has here.
    let depth =
        |status: &str| status.lines().find(|line| line.starts_with("NSpid:")).map(|line| line.split('\t').count());
    let listed = fs::read_to_string(format!("/proc/{above}/task/{above}/children")).unwrap_or_default();
    listed.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).any(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        depth(&status) > depth(&own) || has_inits(pid)
    })
}

/// A directory as a run has handed it on that is over, and whose namespaces are gone.
fn lent(executor: &Executor, directory: &str) -> OwnedFd {
    let socket = executor.path("open/socket");
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(tries(executor, &[&format!("lend {directory} {}", socket.display())]), ["done"]);
    let (connection, _) = listener.accept().unwrap();
    let handed = fdpass::receive(&connection, &mut [0; 1], 1).unwrap().descriptors.pop().unwrap();
    // With the first of its processes its namespaces go.
    until("the end of its first process", || !has_inits(executor.pid()));
    handed
}

#[test]
fn a_writable_directory_that_is_handed_on_lets_nobody_rewrite_a_script_of_another_profile() {
    let executor = listing("{}/open");
    executor.script("open/deep/strong", "#!/bin/sh\n");
    executor.write("open/deep/strong.schema.json", "{}");
    let open = lent(&executor, executor.path("open").to_str().unwrap());
    let write = |name: &str| openat(&open, name, OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRUSR).map(drop);
    assert_eq!(write("deep/strong"), Err(Errno::EROFS));
    assert_eq!(write("deep/other"), Err(Errno::EROFS));
    assert_eq!(write("other"), Ok(()));
}

/// What a run had covered stays so for whoever it has given a directory to, when it is over and its namespaces are gone.
#[test]
fn a_directory_that_is_handed_on_shows_nothing_more_when_its_run_is_over() {
    for more in ["", "\nreadable = /", "\nwritable = {}/open\nnetwork = no", "\nwritable = {}/open\nsyscalls = off"] {
        let executor = Executor::root(&format!("run_as = root{more}"));
        executor.write("conf/agent.key", "secret");
        executor.write("other/x", "plain");
        let root = lent(&executor, "/");
        let at = |name: &str, how| {
            let path = executor.path(name);
            let opened = openat(&root, path.strip_prefix("/").unwrap(), how, Mode::empty()).map(File::from);
            opened.map(|file| std::io::read_to_string(file).unwrap_or_default())
        };
        let seen = ["conf/agent.key", "conf/agent.conf"].map(|name| at(name, OFlag::O_RDONLY));
        assert!(seen.iter().all(Result::is_err), "{more}: {seen:?}");
        assert!(at("conf/agent.conf", OFlag::O_WRONLY).is_err(), "{more}");
        // In the host's `/tmp` that is covered as well, unless the run has it.
        let beside = if more.contains("writable") { Err(Errno::ENOENT) } else { Ok("plain".to_owned()) };
        assert_eq!(at("other/x", OFlag::O_RDONLY), beside, "{more}");
    }
}

/// Two scripts of a stronger profile and one of the same, all where the profile may write.
fn listing(writable: &str) -> Executor {
    let scripts = "strong = {}/open/deep/strong profile=strong\nmine = {}/open/mine\n";
    let profile = format!("run_as = root\nwritable = {writable}\n[profile strong]\nrun_as = root");
    let executor = Executor::spawn_listing(&[], scripts, &profile);
    assert_eq!(executor.answer(), Reloaded::Done);
    executor
}

#[test]
fn no_script_rewrites_one_of_another_profile() {
    let files = "{}/open/deep/strong:{}/open/deep/strong.schema.json:{}/open/mine";
    for writable in ["{}/open", "{}/open:{}/open/deep/strong", files] {
        let executor = listing(writable);
        for name in ["open/deep/strong", "open/mine"] {
            executor.script(name, "#!/bin/sh\necho as-it-was\n");
        }
        executor.write("open/deep/strong.schema.json", "{}");
        let said = executor.says(
            "cd {}/open; echo x >> deep/strong; echo x >> deep/strong.schema.json; rm -f deep/strong; mv deep/strong deep/x
             chmod 777 deep/strong; echo 'echo mine' > mine && sh mine; sh deep/strong; mv deep away",
        );
        assert!(said.contains("\nmine\nas-it-was\n"), "{writable}: {said}");
        // Where only files are named, the directories above them are a run's own.
        assert!(said.ends_with("busy\n") || writable == files, "{writable}: {said}");
        assert!(executor.path("open/deep").exists() && !executor.path("open/away").exists(), "{writable}");
        assert_eq!(fs::read_to_string(executor.path("open/deep/strong")).unwrap(), "#!/bin/sh\necho as-it-was\n");
        assert_eq!(fs::read_to_string(executor.path("open/deep/strong.schema.json")).unwrap(), "{}");
    }
}

#[test]
fn where_a_script_of_another_profile_is_missing_nobody_may_write() {
    let executor = listing("{}/open");
    let Outcome::Refused(refusal) = executor.shell("echo ran", &[]).outcome() else { panic!("not refused") };
    assert!(refusal.code() == "writable-script" && refusal.text().contains("'strong'"), "{refusal:?}");
    executor.script("open/deep/strong", "#!/bin/sh\n");
    executor.write("open/deep/strong.schema.json", "{}");
    assert_eq!(executor.says("echo x > {}/open/free && cat {}/open/free"), "x\n");
}

#[test]
fn a_link_to_a_script_of_another_profile_is_not_replaced() {
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir_all(place.path().join("w/in")).unwrap();
    fs::copy("/bin/true", place.path().join("program")).unwrap();
    symlink(place.path().join("program"), place.path().join("w/in/strong")).unwrap();
    symlink(place.path().join("program"), place.path().join("w/mine")).unwrap();
    File::create_new(place.path().join("w/in/strong.schema.json")).unwrap();
    let place = place.path().display();
    let with = |writable: &str| {
        let scripts = format!("strong = {place}/w/in/strong profile=strong\nmine = {place}/w/mine\n");
        let profile = format!("run_as = root\nwritable = {place}/{writable}\n[profile strong]\nrun_as = root");
        let executor = Executor::spawn_listing(&[], &scripts, &profile);
        assert_eq!(executor.answer(), Reloaded::Done);
        executor
    };
    let said = with("w")
        .says(&format!("cd {place}/w; ln -sfn /bin/false in/strong; rm -f in/strong; rm mine; mv in x; ls . in"));
    assert!(said.matches("Read-only").count() == 2 && said.contains("busy"), "{said}");
    assert!(said.ends_with(".:\nin\n\nin:\nstrong\nstrong.schema.json\n"), "{said}");
    // Where it could be replaced on the host meanwhile.
    let Outcome::Refused(refusal) = with("w/in").shell("echo ran", &[]).outcome() else { panic!("not refused") };
    assert!(refusal.code() == "writable-script" && refusal.text().contains("'strong'"), "{refusal:?}");
}
