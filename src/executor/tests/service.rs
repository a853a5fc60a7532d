//! The executor's own life: its start, its end, reloads, and how much it takes on.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::harness::{Executor, Run, order, until};
use crate::sys::user;
use crate::wire::control::{self, Control, Reloaded};
use crate::wire::frame;
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

#[test]
fn a_broken_configuration_at_the_start_is_told_and_ends_the_executor() {
    let executor = Executor::spawn("{", 65_534);
    let Reloaded::Failed { text } = executor.answer() else { panic!("not failed") };
    assert!(text.starts_with("policy: "), "{text}");
    assert_eq!(executor.finish().code(), Some(1));
}

#[test]
fn a_private_executor_refuses_to_be_root() {
    if user::tests::has_root() {
        let mut executor = Executor::spawn("{}", 0);
        assert_eq!(executor.process.wait().unwrap().code(), Some(1));
        assert!(executor.log().contains("does not run as root"));
    }
}

#[test]
fn a_reload_takes_all_of_the_new_or_keeps_all_of_the_old() {
    let executor = Executor::start();
    executor.set_policy("{ broken");
    assert!(matches!(executor.reload(), Reloaded::Failed { text } if text.starts_with("policy: ")));
    assert_eq!(executor.shell("exit 1", &[]).outcome(), Outcome::Exited { code: 1 });
    executor.set_policy(&json!({"scripts": {"new": "/bin/true"}}).to_string());
    assert_eq!(executor.reload(), Reloaded::Done);
    assert!(matches!(executor.shell("exit 1", &[]).outcome(), Outcome::Refused(_)));
    assert_eq!(executor.run(&order("new", &[], Mode::Attached)).outcome(), Outcome::Exited { code: 0 });
    let log = executor.log();
    assert!(log.contains("ACTION=exec-reload-fail ") && log.contains("ACTION=exec-reload\n"), "{log}");
}

/// KiB of files that the executor has in memory, its program's most of all (`proc_pid_status(5)`), when it waits.
fn of_its_program(executor: &Executor) -> u64 {
    executor.say(&serde_json::to_vec(&Control::Hello).unwrap(), &[]);
    assert_eq!(executor.answer(), Reloaded::Done);
    let status = std::fs::read_to_string(format!("/proc/{}/status", executor.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_reload_leaves_no_more_of_the_program_in_memory_than_the_start() {
    let executor = Executor::start();
    let before = of_its_program(&executor);
    for policy in [r#"{"scripts": {"new": "/bin/true"}}"#, "{ broken"] {
        executor.set_policy(policy);
        executor.reload();
        let after = of_its_program(&executor);
        assert!(after < before + before / 4, "{before} KiB, then {after} KiB");
    }
}

/// What an order's connection says to a word of control.
fn answered(executor: &Executor, word: Control) -> String {
    let mut connection = executor.connect();
    connection.write_all(&frame::encode(&word, control::LIMIT).unwrap()).unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(answer.get(frame::PREFIX..).unwrap_or_default()).into_owned()
}

#[test]
fn only_a_root_executor_tells_what_is_in_scripts_and_nothing_where_others_may_put_them() {
    let private = Executor::start();
    for word in [Control::Versions, Control::Digests] {
        let said = answered(&private, word);
        assert!(said.contains("order-malformed"), "{said}");
    }
    // Where trust is lifted, a script's path may lead to any file of root's.
    let root = Executor::root("run_as = nobody");
    for word in [Control::Versions, Control::Digests] {
        assert_eq!(answered(&root, word), "{}");
    }
}

#[test]
fn a_running_script_keeps_the_configuration_it_was_started_under() {
    let executor = Executor::start();
    let mut run = executor.shell("echo up; read x; exit 2", &[]);
    assert_eq!(run.line(), "up");
    executor.set_policy(&json!({"scripts": {}}).to_string());
    executor.reload();
    run.stdin = None;
    assert_eq!(run.outcome(), Outcome::Exited { code: 2 });
}

#[test]
fn one_script_more_than_allowed_is_turned_away_and_a_freed_place_is_given() {
    let executor = Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "max_children": 2}));
    let runs = [executor.shell("read x", &[]), executor.shell("read x", &[])];
    for run in &runs {
        run.started();
    }
    let Outcome::Refused(refusal) = executor.shell("exit 0", &[]).outcome() else { panic!("not refused") };
    assert_eq!(refusal.code(), "busy");
    assert!(refusal.text().contains("max_children"), "{refusal}");
    for mut run in runs {
        run.stdin = None;
        assert_eq!(run.outcome(), Outcome::Exited { code: 1 });
        assert_eq!(executor.shell("exit 0", &[]).outcome(), Outcome::Exited { code: 0 });
    }
}

#[test]
fn many_scripts_at_once_each_get_their_own_outcome() {
    let executor = Executor::start();
    let runs: Vec<_> = (0..40_u8).map(|code| executor.shell("exit $0", &[&code.to_string()])).collect();
    for (code, run) in (0..40).zip(runs) {
        assert_eq!(run.outcome(), Outcome::Exited { code });
    }
}

#[test]
fn a_monitor_that_is_done_with_its_order_and_slow_to_end_takes_no_place() {
    let executor = Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "max_children": 1}));
    let (ours, theirs) = UnixStream::pair().unwrap();
    // So that it finds no room for its report, and waits until somebody reads.
    theirs.set_nonblocking(true).unwrap();
    while (&theirs).write(&[0; 4096]).is_ok() {}
    executor.say(&serde_json::to_vec(&Control::Order).unwrap(), &[theirs.as_fd()]);
    drop(theirs);
    let slow = Run::on(ours, &order("none", &[], Mode::Detached));
    until("the end on file", || !slow.is_locked());
    assert_eq!(executor.shell("exit 5", &[]).outcome(), Outcome::Exited { code: 5 });
}

#[test]
fn the_executor_ends_with_its_front_end_and_attached_runs_go_on_while_they_are_wanted() {
    let executor = Executor::start();
    let mut run = executor.shell("echo up; read x; exit 8", &[]);
    assert_eq!(run.line(), "up");
    assert_eq!(executor.finish().code(), Some(0));
    run.stdin = None;
    assert_eq!(run.outcome(), Outcome::Exited { code: 8 });
}

#[test]
fn the_executor_ends_when_asked_by_signal_and_not_when_hung_up() {
    let mut executor = Executor::start();
    let pid = executor.pid();
    kill(pid, Signal::SIGHUP).unwrap();
    assert_eq!(executor.reload(), Reloaded::Done);
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(executor.process.wait().unwrap().code(), Some(0));
}

#[test]
fn a_message_outside_the_protocol_is_ignored_with_a_line() {
    let executor = Executor::start();
    let null = std::fs::File::open("/dev/null").unwrap();
    executor.say(b"nonsense", &[]);
    executor.say(b"\"order\"", &[]);
    executor.say(b"\"order\"", &[null.as_fd()]);
    executor.say(b"\"order\"", &[null.as_fd(); 3]);
    executor.say(b"\"reload\"", &[null.as_fd()]);
    executor.say(&vec![b' '; 70_000], &[]);
    assert_eq!(executor.reload(), Reloaded::Done);
    until("all lines", || executor.log().lines().count() == 7);
    let log = executor.log();
    for reason in [
        "cannot be understood",
        "without its connection",
        "not a connected",
        "more than 1",
        "with a descriptor",
        "larger",
    ] {
        assert!(log.contains(reason), "{reason}: {log}");
    }
}

#[test]
fn the_executor_keeps_no_descriptor_of_an_order() {
    let executor = Executor::start();
    let count = || std::fs::read_dir(format!("/proc/{}/fd", executor.pid())).unwrap().count();
    executor.shell("exit 0", &[]).outcome();
    let before = count();
    for _ in 0..20 {
        executor.shell("exit 0", &[]).outcome();
    }
    // Monitors that wait for another order hold one each, for a while.
    until("no more descriptors than before", || count() <= before);
}

/// The monitor of a script, which is its parent.
fn monitor(executor: &Executor, text: &str) -> String {
    let (outcome, out, _) = executor.shell(&format!("{text} echo $PPID"), &[]).finish();
    assert_eq!(outcome, Outcome::Exited { code: 0 });
    out.trim().to_owned()
}

#[test]
fn a_monitor_that_has_done_with_its_order_gets_another_until_a_reload() {
    let executor = Executor::start();
    let first = monitor(&executor, "");
    until("the same monitor", || monitor(&executor, "") == first);
    executor.reload();
    for _ in 0..9 {
        assert_ne!(monitor(&executor, ""), first);
    }
}

#[test]
fn a_monitor_with_somebody_left_to_look_after_gets_no_other_order() {
    let executor = Executor::start();
    let (outcome, out, _) = executor.shell("sleep 1000 > /dev/null 2>&1 & echo $PPID $!", &[]).finish();
    assert_eq!(outcome, Outcome::Exited { code: 0 });
    let (first, left) = out.trim().split_once(' ').unwrap();
    for _ in 0..9 {
        assert_ne!(monitor(&executor, ""), first);
    }
    kill(Pid::from_raw(left.parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_monitor_holds_nothing_of_its_earlier_orders_and_ends_with_its_executor() {
    let executor = Executor::start();
    let first = monitor(&executor, "");
    let held = |monitor: &str| std::fs::read_dir(format!("/proc/{monitor}/fd")).map_or(0, Iterator::count);
    until("the same monitor", || monitor(&executor, "") == first);
    let before = held(&first);
    let again = std::cell::Cell::new(0);
    until("twenty more orders", || {
        again.set(again.get() + u32::from(monitor(&executor, "") == first));
        again.get() >= 20
    });
    until("the last order's descriptors closed", || held(&first) <= before);
    executor.finish();
    until("the end of the monitor", || held(&first) == 0);
}
