//! Orders that are not carried out, and what is told about them.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};

use serde_json::json;

use super::harness::{Executor, ended, order};
use crate::sys::{fdpass, pipe};
use crate::wire::frame;
use crate::wire::limits;
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

fn refused(outcome: Outcome) -> String {
    let Outcome::Refused(refusal) = outcome else { panic!("not refused: {outcome:?}") };
    refusal.code().to_owned()
}

#[test]
fn a_script_that_is_not_listed_is_refused_and_nothing_runs() {
    let executor = Executor::start();
    let (outcome, out, errors) = executor.run(&order("other", &[], Mode::Attached)).finish();
    assert_eq!((refused(outcome).as_str(), out.as_str(), errors.as_str()), ("script-not-permitted", "", ""));
}

#[test]
fn a_script_outside_the_directories_is_refused() {
    let executor = Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "script_dirs": ["/opt"]}));
    assert_eq!(refused(executor.shell("exit 0", &[]).outcome()), "script-not-in-script-dirs");
}

#[test]
fn a_script_that_is_exchanged_for_a_link_elsewhere_is_refused() {
    let executor = Executor::start();
    let path = executor.script("script", "#!/bin/sh\nexit 6\n");
    executor.set_policy(&json!({"scripts": {"x": path}, "script_dirs": [executor.path("")]}).to_string());
    executor.reload();
    let run = || executor.run(&order("x", &[], Mode::Attached)).outcome();
    assert_eq!(run(), Outcome::Exited { code: 6 });
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/bin/true", &path).unwrap();
    assert_eq!(refused(run()), "script-not-in-script-dirs");
}

#[test]
fn nonsense_is_refused_and_the_executor_goes_on() {
    let executor = Executor::start();
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0, 0, 0, 2, b'{', b'}'], &[0, 0, 0, 1, 0xff]] {
        let connection = executor.connect();
        (&connection).write_all(nonsense).unwrap();
        refused(ended(&connection));
    }
    let connection = executor.connect();
    (&connection).write_all(&[0xff; 4]).unwrap();
    assert_eq!(refused(ended(&connection)), "order-too-large");
    drop(executor.connect());
    assert_eq!(executor.shell("exit 0", &[]).outcome(), Outcome::Exited { code: 0 });
}

#[test]
fn an_order_with_too_few_or_too_many_descriptors_is_refused() {
    let executor = Executor::start();
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let bytes = frame::encode(&order("sh", &["-c", "exit 0"], Mode::Attached), limits::ORDER).unwrap();
    for count in [0, 2, 4, 8, 100] {
        let connection = executor.connect();
        fdpass::send(&connection, &bytes, &vec![null.as_fd(); count]).unwrap();
        assert_eq!(refused(ended(&connection)), "order-descriptors", "{count}");
    }
}

/// Runs a shell's text with this standard input. The front-end is root here, as the test is.
fn with_input(executor: &Executor, input: &File, text: &str) -> (Outcome, String) {
    let (read, write) = pipe::pipe().unwrap();
    let connection = executor.connect();
    let bytes = frame::encode(&order("sh", &["-c", text], Mode::Attached), limits::ORDER).unwrap();
    fdpass::send(&connection, &bytes, &[input.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
    drop(write);
    let outcome = ended(&connection);
    (outcome, std::io::read_to_string(File::from(read)).unwrap())
}

#[test]
fn a_script_changes_no_file_of_another_account_that_its_front_end_has_opened() {
    for profile in ["run_as = root", "run_as = root\nwritable = {}/open"] {
        let executor = Executor::root(profile);
        // The agent's account is `daemon`, whoever is at the other end of its connections: root has made those here.
        for (owner, name) in [(2, "other/theirs"), (0, "other/roots"), (1, "other/own")] {
            executor.write(name, "as it was\n");
            std::fs::set_permissions(executor.path(name), PermissionsExt::from_mode(0o666)).unwrap();
            std::os::unix::fs::chown(executor.path(name), Some(owner), None).unwrap();
            let input = File::open(executor.path(name)).unwrap();
            let (outcome, said) = with_input(&executor, &input, "cat; echo changed >> /dev/stdin");
            let now = std::fs::read_to_string(executor.path(name)).unwrap();
            if owner != 1 {
                assert_eq!(refused(outcome), "order-foreign-file", "{profile}");
                assert_eq!((said.as_str(), now.as_str()), ("", "as it was\n"), "{profile}");
                continue;
            }
            assert!(said.starts_with("as it was\n"), "{profile}: {said}");
            // Where only some places are writable, Landlock may keep it from a file elsewhere.
            if !profile.contains("writable") {
                assert_eq!((outcome, now.as_str()), (Outcome::Exited { code: 0 }, "as it was\nchanged\n"), "{said}");
            }
        }
    }
}

#[test]
fn a_script_of_roots_changes_nothing_of_the_null_device_that_it_is_given_and_uses_it() {
    let facts = || std::fs::metadata("/dev/null").map(|facts| (facts.mode(), facts.uid(), facts.ctime_nsec())).unwrap();
    let (executor, before) = (Executor::root("run_as = root\nwritable = {}/open"), facts());
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let text = "wc -c; echo x >&0 && echo written; chmod 666 /dev/stdin; chown 0 /dev/stdin";
    let (outcome, said) = with_input(&executor, &null, text);
    assert!(matches!(outcome, Outcome::Exited { .. }), "{outcome:?}");
    assert!(said.starts_with("0\nwritten\n") && said.matches("Read-only").count() == 2, "{said}");
    assert_eq!(facts(), before);
}

#[test]
fn an_order_that_stalls_is_given_up_and_others_are_not_held_up() {
    let executor = Executor::start();
    let stalled = executor.connect();
    (&stalled).write_all(&[0, 0]).unwrap();
    assert_eq!(executor.shell("exit 0", &[]).outcome(), Outcome::Exited { code: 0 });
    assert_eq!(refused(ended(&stalled)), "order-late");
}

#[test]
fn every_order_leaves_one_line_without_arguments() {
    let executor = Executor::start();
    executor.shell("exit 9", &["secret-argument"]).outcome();
    super::harness::until("the audit line", || executor.log().contains("ACTION=exec "));
    let log = executor.log();
    assert!(log.contains("EXIT=9") && log.contains("PROFILE=default") && !log.contains("secret"), "{log}");
    assert_eq!(log.lines().count(), 1);
}
