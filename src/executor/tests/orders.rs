//! Orders that are not carried out, and what is told about them.

use std::io::Write;
use std::os::fd::AsFd;

use serde_json::json;

use super::harness::{Executor, ended, order};
use crate::sys::fdpass;
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
