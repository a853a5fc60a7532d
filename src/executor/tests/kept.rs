//! Connections that are kept: several orders on each, one after another.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::harness::{Executor, Run, order, report, until};
use crate::sys::{fdpass, pipe};
use crate::wire::frame;
use crate::wire::limits;
use crate::wire::order::{Mode, Order, Report};
use crate::wire::outcome::Outcome;

fn shell(text: &str) -> Order {
    order("sh", &["-c", text], Mode::Attached).kept()
}

/// What became of an order.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It was carried out, and the connection is kept; what it printed.
    Free(String),
    /// The same, and the connection is not kept.
    Ended(String),
    Declined,
    /// It could not be written.
    Unwritten,
    Refused(String),
}

impl Fate {
    fn nothing_happened(&self) -> bool {
        matches!(self, Self::Declined | Self::Unwritten)
    }
}

/// Gives an order, and waits for what becomes of it. Without any report, its monitor has died.
fn try_on(connection: &UnixStream, order: &Order) -> Option<Fate> {
    let null = File::open("/dev/null").unwrap();
    let (read, write) = pipe::pipe().unwrap();
    let bytes = frame::encode(order, limits::ORDER).unwrap();
    match fdpass::send(connection, &bytes, &[null.as_fd(), write.as_fd(), write.as_fd()]) {
        Ok(sent) => assert_eq!(sent, bytes.len()),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
            // Who has no place for it may have said so already, and closed.
            return Some(match report(connection) {
                Some(Report::Ended(Outcome::Refused(refusal))) => Fate::Refused(refusal.code().to_owned()),
                _ => Fate::Unwritten,
            });
        }
    }
    drop(write);
    let said = |read| std::io::read_to_string(File::from(read)).unwrap();
    loop {
        match report(connection)? {
            Report::Started { .. } => {}
            Report::Declined => {
                assert_eq!(said(read), "");
                return Some(Fate::Declined);
            }
            Report::Ended(Outcome::Refused(refusal)) | Report::Free(Outcome::Refused(refusal)) => {
                return Some(Fate::Refused(refusal.code().to_owned()));
            }
            Report::Ended(_) => return Some(Fate::Ended(said(read))),
            Report::Free(_) => return Some(Fate::Free(said(read))),
        }
    }
}

fn give(connection: &UnixStream, order: &Order) -> Fate {
    try_on(connection, order).expect("a report")
}

/// A kept connection, and its monitor.
fn kept(executor: &Executor) -> (UnixStream, String) {
    let connection = executor.connect();
    match give(&connection, &shell("echo $PPID")) {
        Fate::Free(monitor) => (connection, monitor),
        other => panic!("not kept: {other:?}, {}", executor.log()),
    }
}

/// Waits until no order can be given on the connection any more.
fn until_closed(connection: &UnixStream) {
    until("the end of the connection", || give(connection, &shell("")).nothing_happened());
}

#[test]
fn many_orders_on_one_connection_have_one_monitor_and_each_its_own_descriptors_and_status() {
    let executor = Executor::start();
    let (connection, monitor) = kept(&executor);
    for number in 0..20 {
        let said = give(&connection, &shell(&format!("echo $PPID {number}; exit {number}")));
        assert_eq!(said, Fate::Free(format!("{} {number}\n", monitor.trim())));
    }
    assert_eq!(
        give(&connection, &order("no", &[], Mode::Attached).kept()),
        Fate::Refused("script-not-permitted".into())
    );
    assert_eq!(give(&connection, &shell("echo $PPID")), Fate::Free(monitor));
    assert_eq!(give(&connection, &order("sh", &["-c", "echo x"], Mode::Attached)), Fate::Ended("x\n".to_owned()));
    assert!(report(&connection).is_none());
}

#[test]
fn a_monitor_gives_its_connection_up_after_so_many_orders() {
    let executor = Executor::start();
    let (connection, _) = kept(&executor);
    let mut count = 0;
    while give(&connection, &shell("echo x")) == Fate::Free("x\n".to_owned()) {
        count += 1;
        assert!(count < 600);
    }
    assert!(count > 400, "{count}");
    assert!(report(&connection).is_none());
}

#[test]
fn a_connection_that_the_front_end_closes_leaves_its_monitor_to_others() {
    let executor = Executor::start();
    let seen = RefCell::new(HashSet::new());
    // Which one of those that are free is next is not said, and one that is asked too early finds none.
    until("a monitor again", || !seen.borrow_mut().insert(kept(&executor).1));
}

#[test]
fn a_front_end_that_goes_away_ends_its_script_on_a_kept_connection_too() {
    let executor = Executor::start();
    let (connection, _) = kept(&executor);
    let (read, write) = pipe::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let bytes = frame::encode(&shell("sleep 300"), limits::ORDER).unwrap();
    fdpass::send(&connection, &bytes, &[null.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
    drop(write);
    assert!(matches!(report(&connection), Some(Report::Started { .. })));
    drop(connection);
    assert_eq!(std::io::read_to_string(File::from(read)).unwrap(), "");
}

#[test]
fn no_order_on_a_kept_connection_is_carried_out_under_the_policy_before_a_reload() {
    let executor = Executor::start();
    for _ in 0..50 {
        executor.set_policy(&json!({"scripts": {"sh": "/bin/sh"}}).to_string());
        executor.reload();
        let kept: Vec<UnixStream> = (0..3).map(|_| kept(&executor).0).collect();
        executor.set_policy(&json!({"scripts": {}}).to_string());
        executor.reload();
        for connection in &kept {
            let fate = give(connection, &shell("echo ran"));
            assert!(fate.nothing_happened(), "{fate:?}");
        }
    }
    assert_eq!(give(&executor.connect(), &shell("")), Fate::Refused("script-not-permitted".to_owned()));
}

#[test]
fn no_order_is_lost_or_carried_out_twice_while_reloads_take_the_monitors_away() {
    const EACH: usize = 150;
    let executor = Executor::start();
    std::fs::create_dir(executor.path("ran")).unwrap();
    std::fs::set_permissions(executor.path("ran"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let place = executor.path("ran");
    let caller = |caller: usize| {
        let mut connection = executor.connect();
        let mut carried_out = 0;
        while carried_out < EACH {
            // A second one with that name would fail.
            let text = format!("mkdir {}/{caller}-{carried_out} && echo ran", place.display());
            match give(&connection, &shell(&text)) {
                Fate::Free(text) => assert_eq!(text, "ran\n"),
                Fate::Ended(text) => {
                    assert_eq!(text, "ran\n");
                    connection = executor.connect();
                }
                Fate::Declined | Fate::Unwritten => {
                    connection = executor.connect();
                    continue;
                }
                Fate::Refused(code) => panic!("refused: {code}"),
            }
            carried_out += 1;
        }
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|number| scope.spawn(move || caller(number))).collect();
        while !callers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            executor.reload();
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
    });
    assert_eq!(std::fs::read_dir(executor.path("ran")).unwrap().count(), 4 * EACH);
}

#[test]
fn a_kept_connection_ends_with_its_executor() {
    for signal in [Some(Signal::SIGKILL), Some(Signal::SIGTERM), None] {
        let mut executor = Executor::start();
        let (connection, monitor) = kept(&executor);
        match signal {
            Some(signal) => kill(executor.pid(), signal).unwrap(),
            None => executor.control = None,
        }
        executor.process.wait().unwrap();
        let fate = give(&connection, &shell("echo ran"));
        assert!(fate.nothing_happened(), "{fate:?}");
        until("the end of the monitor", || !std::path::Path::new("/proc").join(monitor.trim()).exists());
    }
}

#[test]
fn a_monitor_that_dies_is_a_connection_that_takes_nothing() {
    let executor = Executor::start();
    let (connection, monitor) = kept(&executor);
    kill(Pid::from_raw(monitor.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    until("an order that cannot be written", || matches!(try_on(&connection, &shell("")), Some(Fate::Unwritten)));
}

#[test]
fn a_monitor_with_somebody_left_to_look_after_carries_nothing_more_out() {
    let executor = Executor::start();
    let connection = executor.connect();
    let said = give(&connection, &shell("sleep 300 > /dev/null 2>&1 & echo $!"));
    let Fate::Free(left) = said else { panic!("{said:?}") };
    let fate = give(&connection, &shell("echo ran"));
    assert!(fate.nothing_happened(), "{fate:?}");
    kill(Pid::from_raw(left.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_connection_on_which_nothing_comes_for_a_while_is_given_up() {
    let executor = Executor::start();
    let (connection, monitor) = kept(&executor);
    until("the end of the monitor", || !std::path::Path::new("/proc").join(monitor.trim()).exists());
    assert_eq!(give(&connection, &shell("")), Fate::Unwritten);
}

#[test]
fn who_keeps_a_connection_counts_as_running_and_makes_place_for_an_order() {
    let executor = Executor::with(&json!({"scripts": {"sh": "/bin/sh"}, "max_children": 2}));
    let waiting = [kept(&executor).0, kept(&executor).0];
    let first = executor.shell("read x", &[]);
    first.started();
    waiting.iter().for_each(until_closed);
    // Who has closed a connection may still be about to leave, on a busy machine for longer than its place is waited for.
    let second = RefCell::new(None);
    until("a place beside it", || {
        let connection = executor.connect();
        match give(&connection, &shell("")) {
            Fate::Free(_) => drop(second.replace(Some(connection))),
            fate => assert_eq!(fate, Fate::Refused("busy".to_owned())),
        }
        second.borrow().is_some()
    });
    let second = second.into_inner().unwrap();
    // One at work on its connection is not disturbed, and there is no place beside it.
    let (read, write) = pipe::pipe().unwrap();
    let bytes = frame::encode(&shell("read x; echo done"), limits::ORDER).unwrap();
    let (input, hold) = pipe::pipe().unwrap();
    fdpass::send(&second, &bytes, &[input.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
    drop(write);
    assert!(matches!(report(&second), Some(Report::Started { .. })));
    assert_eq!(give(&executor.connect(), &shell("")), Fate::Refused("busy".to_owned()));
    drop(hold);
    assert!(matches!(report(&second), Some(Report::Ended(_) | Report::Free(_))));
    assert_eq!(std::io::read_to_string(File::from(read)).unwrap(), "done\n");
    drop(first);
    until("a free place", || matches!(give(&executor.connect(), &shell("")), Fate::Free(_)));
}

#[test]
fn a_detached_order_on_a_kept_connection_outlives_it() {
    let executor = Executor::start();
    let (connection, _) = kept(&executor);
    let mut run = Run::on(connection, &order("sh", &["-c", "read x; exit 3"], Mode::Detached));
    run.started();
    run.connection.shutdown(std::net::Shutdown::Both).unwrap();
    run.stdin = None;
    until("the outcome", || {
        let mut text = String::new();
        std::io::Seek::rewind(&mut &run.status).unwrap();
        std::io::Read::read_to_string(&mut &run.status, &mut text).unwrap();
        text == "{\"kind\":\"exited\",\"code\":3}\n"
    });
}

#[test]
fn nonsense_on_a_kept_connection_is_refused_and_ends_it() {
    let executor = Executor::start();
    let (connection, _) = kept(&executor);
    fdpass::send(&connection, &[0, 0, 0, 2, b'{', b'}'], &[]).unwrap();
    assert!(matches!(report(&connection), Some(Report::Ended(Outcome::Refused(_)))));
    assert!(report(&connection).is_none());
    assert!(matches!(kept(&executor), (_, _)));
}
