//! A root executor's runs: what a script can reach. For each guard something forbidden that fails, and a twin, something
//! permitted that works.

mod calls;
mod covered;
mod fenced;
mod leader;
mod reach;
mod shown;

use std::os::unix::fs::MetadataExt as _;

use super::attempts::tries;
use super::harness::{Executor, order};
use crate::wire::control::Reloaded;
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

/// The step and the reason of a run that could not be confined.
fn unconfined(executor: &Executor) -> (String, String) {
    match executor.shell("echo ran", &[]).finish() {
        (Outcome::NotConfined { step, reason }, out, _) if out.is_empty() => (step, reason),
        other => panic!("{other:?}"),
    }
}

fn refused(executor: &Executor) -> String {
    match executor.shell("echo ran", &[]).finish() {
        (Outcome::Refused(refusal), out, _) if out.is_empty() => refusal.code().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_but_the_writable_paths_is_read_only() {
    let executor = Executor::root("run_as = root\nwritable = {}/open");
    let text = "cd {}/; echo x > open/deep/x && cat open/deep/x
        for place in /etc /usr /root /var/tmp /sys /; do (echo x > $place/forbidden); done | grep -c 'Read-only'
        chmod 700 /etc/hostname; mkdir /sys/fs/cgroup/x; echo x > /proc/self/comm";
    let said = executor.says(&text.replace("done |", "done 2>&1 |"));
    assert!(said.starts_with("x\n6\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
}

#[test]
fn without_writable_the_account_decides_what_is_written() {
    let executor = Executor::root("run_as = nobody");
    let said = executor.says("echo x > {}/other/x && cat {}/other/x; echo x > /etc/forbidden");
    assert!(said.starts_with("x\n") && said.contains("Permission denied"), "{said}");
    assert!(executor.path("other/x").exists());
}

#[test]
fn temporary_files_are_private_and_those_of_the_host_are_not_there() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open");
    let said =
        executor.says("echo x > /tmp/mine && cat /tmp/mine; ls -A {}/; ls -A /run; echo x > /dev/shm/x && echo shm");
    assert_eq!(said, "x\nopen\nshm\n");
    assert!(!std::path::Path::new("/tmp/mine").exists());
}

#[test]
fn private_files_never_take_more_than_a_tenth_of_the_hosts_memory() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open");
    let said = executor.says("stat -fc '%b %S' /tmp; grep MemTotal /proc/meminfo");
    let numbers: Vec<u64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [blocks, size, memory] = numbers[..] else { panic!("{said}") };
    assert!(blocks > 0 && (blocks - 1) * size <= memory * 1024 / 10, "{said}");
}

#[test]
fn a_writable_path_that_is_missing_or_behind_a_link_refuses_the_run_by_name() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open:{}/none");
    let (step, reason) = unconfined(&executor);
    assert_eq!(step, "writable");
    assert!(reason.contains("/none: No such file"), "{reason}");
    let executor = Executor::root("run_as = nobody\nwritable = {}/link");
    std::os::unix::fs::symlink("/etc", executor.path("link")).unwrap();
    let (step, reason) = unconfined(&executor);
    assert_eq!(step, "writable");
    assert!(reason.contains("/link is reached through a symbolic link"), "{reason}");
    std::fs::remove_file(executor.path("link")).unwrap();
    std::fs::create_dir(executor.path("link")).unwrap();
    assert_eq!(executor.shell("exit 4", &[]).outcome(), Outcome::Exited { code: 4 });
}

#[test]
fn a_single_file_can_be_writable() {
    let executor = Executor::root("run_as = root\nwritable = {}/open/file");
    std::fs::File::create_new(executor.path("open/file")).unwrap();
    let said = executor.says("echo x > {}/open/file && cat {}/open/file; echo x > {}/open/other");
    assert!(said.starts_with("x\n"), "{said}");
    assert!(!executor.path("open/other").exists());
}

#[test]
fn the_agents_own_files_are_hidden_from_every_account() {
    let caps = "caps = CAP_DAC_OVERRIDE,CAP_FOWNER\n";
    for profile in ["run_as = nobody\n", "run_as = root\n", "run_as = root\nwritable = {}/open\n"] {
        for caps in ["", caps] {
            let executor = Executor::root(&format!("{profile}{caps}"));
            let said = executor
                .says("ls {}/conf; cat {}/conf/agent.conf; echo x > {}/conf/scripts.conf; mv {}/conf {}/open/x");
            assert!(!said.contains("agent.conf\n") && !said.contains("port ="), "{profile}{caps}: {said}");
            assert!(std::fs::read_to_string(executor.path("conf/scripts.conf")).unwrap().starts_with("sh ="));
        }
    }
    let executor = Executor::root("run_as = nobody");
    executor.write("other/x", "seen");
    assert_eq!(executor.says("cat {}/other/x"), "seen");
}

#[test]
fn a_hidden_place_itself_is_moved_by_nobody() {
    for account in ["nobody", "root"] {
        let executor = Executor::root(&format!("run_as = {account}"));
        let said = executor.says("mv {}/conf {}/open/x; rmdir {}/conf; mv {}/other {}/open/twin && echo moved");
        assert!(said.matches("busy").count() == 2 && said.ends_with("moved\n"), "{account}: {said}");
        assert!(executor.path("conf/agent.conf").exists());
    }
}

#[test]
fn a_writable_path_above_or_below_the_agents_own_files_is_refused_at_the_start() {
    for writable in ["{}", "{}/conf", "{}/conf/agent.conf", "/", "/tmp"] {
        let executor = Executor::spawn_root(&[], &format!("run_as = nobody\nwritable = {writable}"));
        let Reloaded::Failed { text } = executor.answer() else { panic!("not failed") };
        assert!(text.contains("writable path"), "{text}");
    }
}

#[test]
fn what_becomes_the_agents_own_later_is_refused_and_hidden_at_the_next_run() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open");
    assert_eq!(executor.shell("exit 4", &[]).outcome(), Outcome::Exited { code: 4 });
    executor.lead("conf-runs", executor.path("open/deep"));
    assert_eq!(refused(&executor), "writable-control");
    let executor = Executor::root("run_as = nobody");
    executor.write("open/deep/x", "seen");
    assert_eq!(executor.says("cat {}/open/deep/x"), "seen");
    executor.lead("conf-runs", executor.path("open/deep"));
    assert!(!executor.says("cat {}/open/deep/x").contains("seen"));
}

#[test]
fn the_front_end_never_chooses_what_scripts_do_not_see() {
    let executor = Executor::root("run_as = nobody");
    executor.write("open/deep/denied", "everything");
    let link = executor.path("conf-runs");
    executor.lead("conf-runs", executor.path("open/deep"));
    std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    assert_eq!(refused(&executor), "control-unknown");
    std::fs::remove_file(&link).unwrap();
    std::fs::create_dir(&link).unwrap();
    assert_eq!(executor.says("cat {}/open/deep/denied"), "everything");
}

#[test]
fn a_script_among_the_agents_own_files_is_refused() {
    let executor = Executor::root("run_as = nobody");
    executor.lead("conf-runs", "/usr/bin");
    let twin = Executor::root("run_as = nobody");
    twin.lead("conf-runs", "/usr/share");
    assert_eq!(twin.shell("exit 4", &[]).outcome(), Outcome::Exited { code: 4 });
    // The shell's own path leads there, so that it cannot even be found.
    assert!(!executor.shell("exit 4", &[]).outcome().started());
}

#[test]
fn a_device_node_on_any_disk_is_dead_and_the_harmless_ones_work() {
    let executor = Executor::root("run_as = root\nwritable = {}/open");
    let plain = Executor::root("run_as = root\ncaps = CAP_DAC_OVERRIDE");
    for executor in [&executor, &plain] {
        let node = executor.path("open/zero");
        nix::sys::stat::mknod(
            &node,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::S_IRUSR,
            nix::sys::stat::makedev(1, 5),
        )
        .unwrap();
        let said =
            executor.says("head -c 4 {}/open/zero; head -c 4 /dev/zero | wc -c; echo x > /dev/null && echo null");
        assert!(said.contains("Permission denied") && said.ends_with("4\nnull\n"), "{said}");
    }
    assert_eq!(
        executor.says("find /dev -type b; find /dev -type c | sort | tr '\\n' ' '").replace("/dev/", "").trim_end(),
        "full null pts/ptmx random tty urandom zero"
    );
    assert!(executor.says("mknod /tmp/x c 1 5").contains("Operation not permitted"));
}

#[test]
fn a_device_that_the_profile_names_is_there() {
    let executor = Executor::root("run_as = root\nwritable = /dev/kmsg:{}/open");
    assert_eq!(executor.says("test -c /dev/kmsg && echo there; : > /dev/kmsg && echo opened"), "there\nopened\n");
}

#[test]
fn private_devices_are_lent_where_none_can_be_made() {
    let executor = Executor::root_under(&["setpriv", "--bounding-set=-mknod"], "run_as = nobody\nwritable = {}/open");
    let said = executor.says("head -c 4 /dev/zero | wc -c; echo x > /dev/null && echo null; ls /dev | tr '\\n' ' '");
    assert!(said.starts_with("4\nnull\n") && !said.contains("kmsg"), "{said}");
}

#[test]
fn devices_that_are_lent_are_not_changed_by_a_script_of_roots() {
    let facts = || std::fs::metadata("/dev/full").map(|facts| (facts.mode(), facts.uid())).unwrap();
    let before = facts();
    let profile = "run_as = root\ncaps = CAP_CHOWN\nwritable = {}/open";
    let lent = Executor::root_under(&["setpriv", "--bounding-set=-mknod"], profile);
    let text = "chmod 640 /dev/full; chown 1 /dev/full; stat -c %a /dev/full; echo x > /dev/full || echo full; \
        head -c 4 /dev/urandom | wc -c; echo x > /dev/null && echo null";
    let said = lent.says(text);
    assert_eq!(facts(), before, "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 2, "{said}");
    assert!(said.contains("\nfull\n") && said.ends_with("4\nnull\n"), "{said}");
    // The twin: those that are the run's own are its own to change.
    let said = Executor::root(profile).says(text);
    assert!(said.starts_with("640\n") && said.ends_with("4\nnull\n"), "{said}");
    assert_eq!(facts(), before);
}

#[test]
fn one_run_has_some_terminals_and_leaves_the_rest_to_others() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open");
    assert_eq!(tries(&executor, &["terminals 64", "terminals 65", "terminals 10"]), ["done", "ENOSPC", "done"]);
}

#[test]
fn a_script_holds_three_descriptors_and_none_of_its_init() {
    let executor = Executor::root("run_as = root\nwritable = {}/open");
    let (_, out, _) = executor.shell("ls /proc/$$/fd", &[]).finish();
    assert_eq!(out, "0\n1\n2\n");
    let said = executor.says(
        "for fd in /proc/1/fd/*; do readlink $fd && echo $fd; done; ls /proc/1/root/ && echo in; cat /proc/1/mem",
    );
    assert!(!said.contains("pipe") && !said.contains("in\n") && said.contains("Permission denied"), "{said}");
}

#[test]
fn other_processes_cannot_be_seen_signalled_or_read() {
    let executor = Executor::root("run_as = nobody");
    let outside = executor.pid();
    let said = executor
        .says(&format!("kill -0 {outside}; ls -d /proc/{outside}; ls -d /proc/[0-9]* | wc -l; cat /proc/1/environ"));
    assert!(
        said.contains("No such process") && said.contains("No such file") && said.contains("Permission denied"),
        "{said}"
    );
    assert!(said.contains("\n4\n") || said.contains("\n3\n"), "{said}");
}

#[test]
fn the_kernels_settings_cannot_be_written() {
    for profile in ["run_as = root", "run_as = root\nwritable = {}/open"] {
        let executor = Executor::root(profile);
        let said = executor.says("echo x > /proc/sys/kernel/core_pattern; cat /proc/sys/kernel/ostype");
        assert!(said.contains("Read-only file system") && said.ends_with("Linux\n"), "{said}");
    }
}

#[test]
fn nothing_that_a_run_mounts_shows_outside_even_where_mounts_are_shared() {
    let starter = ["unshare", "--mount", "--propagation", "shared"];
    let executor = Executor::root_under(&starter, "run_as = nobody\nwritable = {}/open");
    let mounts = || std::fs::read_to_string(format!("/proc/{}/mountinfo", executor.pid())).unwrap();
    let before = mounts();
    assert!(before.contains("shared:"), "{before}");
    assert_eq!(executor.says("cat /proc/self/mountinfo | grep -c 'shared:\\|master:'"), "0\n");
    assert_eq!(mounts(), before);
}

#[test]
fn host_name_and_shared_memory_are_the_runs_own() {
    let executor = Executor::root("run_as = root\ncaps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes\nsyscalls = off");
    assert_eq!(executor.says("hostname changed-by-a-script && hostname"), "changed-by-a-script\n");
    assert_ne!(crate::sys::host::hostname(), "changed-by-a-script");
    for name in ["ipc", "uts", "mnt", "pid"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(executor.says(&format!("readlink /proc/self/ns/{name}")).trim_end(), own.to_str().unwrap());
    }
}

#[test]
fn only_readable_trees_can_be_read_or_executed() {
    let system = "/usr:/bin:/lib:/lib64";
    let executor = Executor::root(&format!("run_as = root\nreadable = {system}:{{}}/open"));
    executor.write("open/x", "seen");
    executor.write("other/x", "secret");
    let said = executor
        .says("cat {}/open/x; cat {}/other/x; cat /etc/passwd; cat /dev/null && echo null; cat /proc/self/comm");
    assert!(said.starts_with("seen") && said.ends_with("null\ncat\n"), "{said}");
    assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
    let executor = Executor::root(&format!("run_as = root\nreadable = {system}\nwritable = {{}}/open"));
    let said = executor.says("echo x > {}/open/x && cat {}/open/x; cat /etc/passwd; echo t > /tmp/t && cat /tmp/t");
    assert!(said.starts_with("x\n") && said.contains("Permission denied") && said.ends_with("t\n"), "{said}");
    let executor = Executor::root("run_as = root\nreadable = {}/open");
    match executor.shell("echo ran", &[]).outcome() {
        Outcome::NotStarted { reason, .. } => assert!(reason.contains("'readable'"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let executor = Executor::root("run_as = root\nreadable = /no/such/tree");
    let (step, reason) = unconfined(&executor);
    assert!(step == "readable" && reason.contains("/no/such/tree"), "{step} {reason}");
}

/// Words that copy a program to a place, so that all may execute it, and then do.
fn executing_in(place: &str) -> String {
    format!("cp /bin/echo {place}/e && chmod 755 {place}/e && {place}/e executed; ")
}

#[test]
fn what_is_written_can_be_read_and_only_what_is_readable_executed() {
    let system = "/usr:/bin:/lib:/lib64";
    let places = ["{}/open", "/tmp", "/dev/shm"];
    let all: String = places.into_iter().map(executing_in).collect();
    let read: String = places.map(|place| format!("cmp /bin/echo {place}/e && echo read; ")).concat();
    let executed = |profile: &str| {
        let executor = Executor::root(&format!("run_as = root\n{profile}"));
        let said = executor.says(&format!("{all}{read}"));
        assert_eq!(said.matches("read\n").count(), 3, "{profile}: {said}");
        let (done, denied) = (said.matches("executed\n").count(), said.matches("Permission denied").count());
        assert_eq!(done + denied, 3, "{profile}: {said}");
        done
    };
    assert_eq!(executed(&format!("readable = {system}\nwritable = {{}}/open")), 0);
    // Each twin differs in what it names.
    assert_eq!(executed("writable = {}/open"), 3);
    assert_eq!(executed(&format!("readable = {system}:{{}}/open\nwritable = {{}}/open")), 1);
    assert_eq!(executed(&format!("readable = {system}:/tmp\nwritable = {{}}/open")), 2);
}

#[test]
fn a_script_that_lies_where_it_may_write_starts_and_an_interpreter_there_does_not() {
    let lines = "x = {}/open/x\ny = {}/open/y\n";
    let started = |readable: &str| {
        let profile = format!("run_as = nobody\nreadable = /usr:/bin:/lib:/lib64{readable}\nwritable = {{}}/open");
        let executor = Executor::spawn_listing(&[], lines, &profile);
        assert_eq!(executor.answer(), Reloaded::Done);
        let x = executor.script("open/x", "#!/bin/sh\necho ran\n");
        executor.script("open/y", &format!("#!{}\n", x.display()));
        ["x", "y"].map(|name| executor.run(&order(name, &[], Mode::Attached)).finish())
    };
    let [itself, through] = started("");
    assert_eq!((itself.0, itself.1.as_str()), (Outcome::Exited { code: 0 }, "ran\n"));
    match through {
        (Outcome::NotStarted { step, reason }, out, _) if step == "exec" && out.is_empty() => {
            assert!(reason.contains("'readable'"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let [_, through] = started(":{}/open");
    assert_eq!((through.0, through.1.as_str()), (Outcome::Exited { code: 0 }, "ran\n"));
}

#[test]
fn directories_can_be_renamed_within_a_writable_tree_and_not_out_of_it() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open:{}/other");
    let said = executor.says("cd {}/; mkdir open/a && mv open/a open/deep/b && ls open/deep; mv open/deep/b /usr/x");
    assert!(said.starts_with("b\n") && said.contains("Read-only"), "{said}");
}
