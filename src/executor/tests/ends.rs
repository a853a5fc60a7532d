//! How a script is ended by others: time, cancellation, a front-end that goes away.

use std::io::{Read, Seek, Write};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::attempts::become_one;
use super::harness::{Executor, Run, order, until};
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

/// Members in sessions of their own that ignore being asked, three deep.
const STUBBORN: &str = "trap '' TERM; \
    setsid sh -c 'setsid sleep 1000 & sleep 1000' & \
    setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' & \
    echo up; while :; do sleep 1000; done";

/// Four lines of succession, each process starting the next in a new session and ending; they stop by themselves
/// after a while, so that a failing test does not go on for ever.
const BOMB: &str = "trap '' TERM; \
    n='[ $1 -gt 0 ] && setsid sh -c \"$0\" \"$0\" $(($1 - 1)) &'; \
    for i in 1 2 3 4; do sh -c \"$n\" \"$n\" 4000; done; \
    echo up; while :; do sleep 1000; done";

fn impatient() -> Executor {
    Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "kill_grace": 50}))
}

fn limited(executor: &Executor, text: &str, millis: u64) -> Run {
    let order = order("sh", &["-c", text], Mode::Attached).time_limit(Some(Duration::from_millis(millis)));
    executor.run(&order)
}

/// Runs a text until its time is up, and demands that everyone is gone by then. On a busy machine a script may not have
/// got as far by then: it is given more time, until it has printed this.
#[track_caller]
fn out_of_time(executor: &Executor, text: &str, printed: &str) {
    let limits = std::iter::successors(Some(200), |millis| Some(millis * 2));
    for limit_ms in limits.take_while(|millis| *millis < 60_000) {
        let mut run = limited(executor, text, limit_ms);
        assert_eq!(run.outcome(), Outcome::TimedOut { limit_ms });
        let mut text = Vec::new();
        assert!(run.everyone_is_gone_but_for(&mut text));
        if text == printed.as_bytes() {
            return;
        }
        assert!(printed.as_bytes().starts_with(&text), "{}", String::from_utf8_lossy(&text));
    }
    panic!("'{printed}' was never printed in time");
}

#[test]
fn time_that_is_up_ends_a_stubborn_tree_to_the_last_member() {
    let executor = impatient();
    out_of_time(&executor, STUBBORN, "up\n");
}

#[test]
fn time_that_is_up_ends_a_bomb() {
    let executor = impatient();
    out_of_time(&executor, BOMB, "up\n");
}

/// Makes siblings of itself (`CLONE_PARENT`), so many that its monitor never sees the last of them, for a minute or until
/// somebody ends it. It does not listen when it is asked to.
fn flood() -> String {
    format!("trap '' TERM; {}", become_one(&["flood siblings 60", "wait"]))
}

/// Lets others go first where they compete with the monitor of a run for a processor, as on a busy machine they do.
pub(super) fn delay(run: &Run) {
    let monitor = parent(run.started()).to_string();
    #[expect(clippy::disallowed_methods, reason = "there is no safe binding")]
    let status = std::process::Command::new("renice").args(["-n", "10", "-p", &monitor]).stdout(Stdio::null()).status();
    assert!(status.unwrap().success());
}

#[test]
fn time_that_is_up_ends_a_script_that_makes_siblings_faster_than_they_are_buried() {
    let executor = impatient();
    let mut run = limited(&executor, &flood(), 1500);
    delay(&run);
    assert_eq!(run.outcome(), Outcome::TimedOut { limit_ms: 1500 });
    let mut text = Vec::new();
    assert!(run.everyone_is_gone_but_for(&mut text));
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains("OUTRUN"), "{text}");
}

#[test]
fn a_front_end_that_hangs_up_is_heard_whatever_a_script_makes() {
    let executor = impatient();
    let mut run = executor.shell(&flood(), &[]);
    delay(&run);
    // An empty line is before it; two are the end.
    let lines = std::iter::repeat_with(|| run.line()).scan(0, |empty, line| {
        *empty = if line.is_empty() { *empty + 1 } else { 0 };
        (*empty < 5).then_some(line)
    });
    assert!({ lines }.any(|line| line == "ANSWER done"));
    let Run { connection, mut stdout, .. } = run;
    drop(connection);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert!(!text.contains("OUTRUN"), "{text}");
    until("the audit line", || executor.log().contains("OUTCOME=cancelled"));
}

#[test]
fn the_profiles_limit_holds_where_the_order_asks_for_more() {
    let executor = Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "timeout": 50}));
    let outcome = limited(&executor, "sleep 1000", 1_000_000).outcome();
    assert_eq!(outcome, Outcome::TimedOut { limit_ms: 50 });
}

#[test]
fn a_script_that_tidies_up_when_asked_is_not_killed_and_still_out_of_time() {
    let executor = Executor::start();
    out_of_time(&executor, "trap 'echo tidy; exit 0' TERM; sleep 1000 & wait", "tidy\n");
}

#[test]
fn a_cancelled_order_is_answered_when_everyone_is_gone() {
    let executor = impatient();
    let mut run = executor.shell(STUBBORN, &[]);
    assert_eq!(run.line(), "up");
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert!(run.everyone_is_gone());
}

#[test]
fn a_cancellation_in_pieces_is_heard_and_a_second_one_does_no_harm() {
    let executor = Executor::start();
    let run = executor.shell("sleep 1000", &[]);
    run.started();
    let bytes = crate::wire::frame::encode(&crate::wire::order::Command::Cancel, 64).unwrap();
    for byte in &bytes {
        (&run.connection).write_all(&[*byte]).unwrap();
    }
    let _ = (&run.connection).write_all(&bytes);
    assert_eq!(run.outcome(), Outcome::Cancelled);
}

#[test]
fn a_connection_that_closes_ends_an_attached_script() {
    let executor = impatient();
    let mut run = executor.shell(STUBBORN, &[]);
    assert_eq!(run.line(), "up");
    let Run { connection, mut stdout, .. } = run;
    drop(connection);
    assert_eq!(stdout.read_to_end(&mut Vec::new()).unwrap(), 0);
    until("the audit line", || executor.log().contains("OUTCOME=cancelled"));
}

#[test]
fn a_front_end_that_talks_nonsense_loses_its_script() {
    let executor = impatient();
    let run = executor.shell("sleep 1000", &[]);
    run.started();
    (&run.connection).write_all(b"nonsense").unwrap();
    assert_eq!(run.outcome(), Outcome::Cancelled);
}

#[test]
fn a_second_order_on_a_connection_is_nonsense() {
    let executor = impatient();
    let run = executor.shell("sleep 1000", &[]);
    run.started();
    let again = crate::wire::frame::encode(&order("sh", &["-c", "echo twice"], Mode::Attached), 1 << 20).unwrap();
    let _ = (&run.connection).write_all(&again);
    let (outcome, out, _) = run.finish();
    assert_eq!((outcome, out.as_str()), (Outcome::Cancelled, ""));
}

#[test]
fn an_attached_script_dies_with_its_monitor() {
    let executor = Executor::start();
    let mut run = executor.shell("echo up; exec sleep 1000", &[]);
    let pid = run.started();
    assert_eq!(run.line(), "up");
    kill(Pid::from_raw(parent(pid)), Signal::SIGKILL).unwrap();
    assert_eq!(run.rest(), "");
    assert_eq!(run.report(), None);
}

fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

fn detached(executor: &Executor, text: &str) -> Run {
    executor.run(&order("sh", &["-c", text], Mode::Detached))
}

fn status(run: &mut Run) -> String {
    let mut text = String::new();
    run.status.rewind().unwrap();
    run.status.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_detached_script_outlives_its_connection_and_the_executor() {
    let mut executor = Executor::start();
    let mut run = detached(&executor, "trap '' HUP; echo up; read x; exit $x");
    run.started();
    assert_eq!(run.line(), "up");
    // Both at once, as when the machine's service manager kills the whole service.
    kill(executor.pid(), Signal::SIGKILL).unwrap();
    executor.control = None;
    let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut run.connection, ours));
    executor.process.wait().unwrap();
    run.stdin.take().unwrap().write_all(b"42\n").unwrap();
    until("the status", || run.status.metadata().unwrap().len() > 0);
    until("the whole line", || std::fs::read(format!("/proc/self/fd/{}", fd(&run))).unwrap().ends_with(b"\n"));
    assert_eq!(status(&mut run), "{\"kind\":\"exited\",\"code\":42}\n");
}

fn fd(run: &Run) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(&run.status)
}

#[test]
fn a_detached_order_has_its_status_on_file_when_the_end_is_reported() {
    let executor = Executor::start();
    let mut run = detached(&executor, "exit 3");
    assert_eq!(run.outcome(), Outcome::Exited { code: 3 });
    assert_eq!(status(&mut run), "{\"kind\":\"exited\",\"code\":3}\n");
    assert!(!run.is_locked());
    let mut run = executor.run(&order("unknown", &[], Mode::Detached));
    assert!(matches!(run.outcome(), Outcome::Refused(_)));
    assert!(status(&mut run).contains("script-not-permitted"));
}

#[test]
fn a_detached_order_can_be_cancelled() {
    let executor = impatient();
    let mut run = detached(&executor, STUBBORN);
    assert_eq!(run.line(), "up");
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert!(run.everyone_is_gone());
    assert_eq!(status(&mut run), "{\"kind\":\"cancelled\"}\n");
}

#[test]
fn a_byte_in_the_fifo_cancels_when_front_end_and_executor_are_gone() {
    let mut executor = impatient();
    let mut run = detached(&executor, STUBBORN);
    assert_eq!(run.line(), "up");
    kill(executor.pid(), Signal::SIGKILL).unwrap();
    executor.control = None;
    let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut run.connection, ours));
    executor.process.wait().unwrap();
    assert!(run.is_locked());
    run.cancel.write_all(b"x").unwrap();
    until("the lock is free", || !run.is_locked());
    assert!(run.everyone_is_gone());
    assert_eq!(status(&mut run), "{\"kind\":\"cancelled\"}\n");
}

#[test]
fn a_detached_script_dies_with_its_monitor_and_the_lock_is_free() {
    let executor = Executor::start();
    let mut run = detached(&executor, "echo up; exec sleep 1000");
    let pid = run.started();
    assert_eq!(run.line(), "up");
    assert!(run.is_locked());
    kill(Pid::from_raw(parent(pid)), Signal::SIGKILL).unwrap();
    assert_eq!((run.rest().as_str(), run.report()), ("", None));
    until("the lock is free", || !run.is_locked());
    assert_eq!(status(&mut run), "");
}

#[test]
fn a_script_that_signals_its_group_or_its_parent_does_not_hurt_its_monitor() {
    let executor = Executor::start();
    let run = executor
        .shell("trap '' TERM INT HUP; kill -TERM $PPID; kill -INT $PPID; kill -HUP $PPID; kill -TERM 0; exit 5", &[]);
    assert_eq!(run.outcome(), Outcome::Exited { code: 5 });
}
