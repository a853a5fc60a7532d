//! Forking is only sound with one thread, and a test harness has many. So a test that needs a process of its own
//! starts this test binary again, which runs that one test, forks at once and goes on in the child.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::*;
use crate::sys::attempt;
use crate::sys::file::{Access, Identity, Version, overwrite, write_atomic};

/// Longer than any program here takes to be started, on any machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);
/// Set in the new process, to the name that was given to [`in_a_process`].
const ROLE: &str = "CTRL_EXEC_TEST_ROLE";
/// Separates what the harness prints from what the closure answers.
const MARK: &str = "ANSWER:";

/// Runs `work` in a single-threaded process and gives back its answer. The calling test is run again in a new
/// process, up to this call, with the same `name`.
pub(crate) fn in_a_process(name: &str, work: impl FnOnce() -> String) -> String {
    if std::env::var(ROLE).is_ok_and(|role| role == name) {
        match fork().unwrap() {
            Fork::Child => {
                let answer = work();
                let text = format!("{MARK}{answer}\n");
                File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap()).write_all(text.as_bytes()).unwrap();
                end(0)
            }
            Fork::Parent(pid) => {
                nix::sys::wait::waitpid(pid, None).unwrap();
                end(0)
            }
        }
    }
    let test = std::thread::current().name().unwrap().to_owned();
    #[expect(clippy::disallowed_methods, reason = "the test binary itself, as a process of its own")]
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    let answer = printed.split_once(MARK).unwrap_or_else(|| panic!("no answer: {printed}")).1;
    answer.trim_end().to_owned()
}

/// Makes a chain of `length` processes below this one, each in a session of its own, that wait for ever; returns
/// when the last is there.
pub(crate) fn chain_of_sessions(length: usize) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    if let Fork::Child = fork().unwrap() {
        own_session().unwrap();
        if length > 1 {
            chain_of_sessions(length - 1);
        }
        (&writer).write_all(b"x").unwrap();
        loop {
            nix::unistd::pause();
        }
    }
    drop(writer);
    reader.read_exact(&mut [0]).unwrap();
}

/// Reaps until nobody is left.
fn wait_for_all() -> Vec<End> {
    let signals = Signals::collect(&[Signal::SIGCHLD]).unwrap();
    let mut ends = Vec::new();
    loop {
        match reap().unwrap() {
            Reaped::Child(_, end) => ends.push(end),
            Reaped::Nobody => return ends,
            Reaped::Running => {
                crate::sys::poll::readable([Some(signals.as_fd())], None).unwrap();
                while signals.next().unwrap().is_some() {}
            }
        }
    }
}

fn shell(script: &str, output: OwnedFd) -> Spawn {
    let text = |text: &str| std::ffi::CString::new(text).unwrap();
    let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
    Spawn {
        path: text("/bin/sh"),
        argv: vec![text("sh"), text("-c"), text(script)],
        environment: vec![text("PATH=/bin:/usr/bin")],
        stdio: [null(), output, null()],
        expected: Expected::Anything,
        dies_with_parent: false,
        without_keys: false,
        directory: "/".into(),
        umask: 0o022,
    }
}

/// Starts it and says how starting went, how it ended and what it printed.
fn outcome(change: impl FnOnce(&mut Spawn), script: &str) -> String {
    let (reader, writer) = pipe_pair();
    let mut spawn = shell(script, writer);
    change(&mut spawn);
    let (spawned, _) = spawn.start(PATIENCE).unwrap();
    let failure = Failure::read(spawned.verdict).unwrap();
    let printed = std::io::read_to_string(File::from(reader)).unwrap();
    format!("{:?} {:?} {printed}", failure.as_ref().map(Failure::step), wait_for_all())
}

fn pipe_pair() -> (OwnedFd, OwnedFd) {
    crate::sys::pipe::pipe().unwrap()
}

#[test]
fn of_a_hundred_dead_some_are_buried_at_once_and_the_others_when_there_was_time_for_other_things() {
    let text = in_a_process("some", || {
        let children: Vec<Pid> = (0..100)
            .map(|_| match fork().unwrap() {
                Fork::Child => end(3),
                Fork::Parent(child) => child,
            })
            .collect();
        for child in &children {
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            waitid(Id::Pid(*child), flags).unwrap();
        }
        let mut buried = Vec::new();
        let mut round = || {
            let before = buried.len();
            let rest = reap_some(|pid, end| buried.push((pid, end))).unwrap();
            (buried.len() - before, rest)
        };
        let rounds = [round(), round(), round()];
        let all = children.iter().all(|child| buried.contains(&(*child, End::Exited(3))));
        format!("{rounds:?} {all}")
    });
    assert_eq!(text, "[(64, More), (36, Nobody), (0, Nobody)] true");
}

#[test]
fn a_program_gets_three_descriptors_and_its_status_comes_back() {
    let text = in_a_process("descriptors", || {
        let _extra = (File::open("/").unwrap(), pipe_pair());
        // The fourth is the listing's own; a pipe in this line would for a moment be the shell's.
        outcome(|_| (), "ls /proc/self/fd; exit 7")
    });
    assert_eq!(text, "None [Exited(7)] 0\n1\n2\n3");
}

#[test]
fn descriptors_are_closed_one_by_one_where_the_kernel_cannot_close_a_range() {
    let text = in_a_process("listed", || {
        let kept = File::open("/").unwrap();
        // Closed behind its back, so it must never close itself.
        std::mem::forget(pipe_pair());
        let number = std::os::fd::AsRawFd::as_raw_fd(&kept);
        spawn::close_listed(&[kept.as_fd()]).unwrap();
        let open = |number: i32| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
        (0..64)
            .filter(|fd| open(*fd))
            .map(|fd| if fd == number { "kept ".to_owned() } else { format!("{fd} ") })
            .collect()
    });
    assert_eq!(text, "0 1 2 kept");
}

#[test]
fn what_lies_between_descriptors_that_are_kept_is_closed() {
    let text = in_a_process("ranges", || {
        let all = [(); 7].map(|()| File::open("/").unwrap());
        let numbers = all.each_ref().map(std::os::fd::AsRawFd::as_raw_fd);
        let [_, second, third, _, _, sixth, _] = &all;
        // In any order, and with a standard one.
        keep_only(&[sixth.as_fd(), second.as_fd(), std::io::stderr().as_fd(), third.as_fd()]).unwrap();
        // Closed behind their backs.
        std::mem::forget(all);
        let open = |number: i32| std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok();
        let name = |number: i32| match numbers.iter().position(|known| *known == number) {
            Some(place) => format!("kept {place}"),
            None => number.to_string(),
        };
        (0..256).filter(|number| open(*number)).map(name).collect::<Vec<_>>().join(", ")
    });
    assert_eq!(text, "0, 1, 2, kept 1, kept 2, kept 5");
}

#[test]
fn ignored_and_blocked_signals_are_not_inherited() {
    let text = in_a_process("signals", || {
        block_all().unwrap();
        outcome(|_| (), "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t '")
    });
    assert_eq!(text, "None [Exited(0)] SigBlk:0000000000000000SigIgn:0000000000000000");
}

#[test]
fn a_signal_that_is_held_waits_until_it_is_released() {
    let text = in_a_process("held", || {
        let held = hold(&[Signal::SIGUSR2]).unwrap();
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        // It would end this process; collected, it only arrives.
        let signals = Signals::collect(&[Signal::SIGUSR2]).unwrap();
        let waited = signals.next().unwrap();
        held.release().unwrap();
        format!("{waited:?} {:?}", signals.next().unwrap())
    });
    assert_eq!(text, "Some(SIGUSR2) None");
}

#[test]
fn a_process_with_defaults_for_good_passes_them_on() {
    let text = in_a_process("defaults", || {
        block_all().unwrap();
        default_for_good();
        let ignored = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t '";
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let own: Vec<&str> =
            own.lines().filter(|line| line.starts_with("SigIgn") || line.starts_with("SigCgt")).collect();
        format!("{own:?} {}", outcome(|_| (), ignored))
    });
    let none = "0000000000000000";
    let own = format!("[\"SigIgn:\\t{none}\", \"SigCgt:\\t{none}\"]");
    assert_eq!(text, format!("{own} None [Exited(0)] SigBlk:{none}SigIgn:{none}"));
}

#[test]
fn a_real_time_signal_is_an_end_like_any_other() {
    let text = in_a_process("real-time", || outcome(|_| (), "kill -40 $$"));
    assert_eq!(text, "None [Signalled(40)]");
}

#[test]
fn a_program_that_cannot_be_executed_says_why() {
    let text = in_a_process("missing", || outcome(|spawn| spawn.path = c"/nonexistent".to_owned(), ""));
    assert_eq!(text, "Some(\"exec\") [Exited(127)]");
}

#[test]
fn another_file_than_the_judged_one_is_not_executed() {
    let text = in_a_process("identity", || {
        let other = Identity::of(std::path::Path::new("/etc/passwd")).unwrap();
        let judged = Identity::of(std::path::Path::new("/bin/sh")).unwrap();
        let wrong = outcome(|spawn| spawn.expected = Expected::File(other), "echo ran");
        let none = outcome(|spawn| spawn.expected = Expected::Nothing, "echo ran");
        let right = outcome(|spawn| spawn.expected = Expected::File(judged), "echo ran");
        format!("{wrong}|{none}|{right}")
    });
    let refused = "Some(\"identity\") [Exited(127)] ";
    assert_eq!(text, format!("{refused}|{refused}|None [Exited(0)] ran"));
}

#[test]
fn a_file_that_was_written_to_since_it_was_judged_is_not_executed() {
    let text = in_a_process("version", || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let write = |text: &str| write_atomic(&path, text.as_bytes(), Access::mode(0o755)).unwrap();
        write("#!/bin/sh\necho one\n");
        let judged = Version::of(&path).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let run = || {
            let change = |spawn: &mut Spawn| (spawn.path, spawn.expected) = (name.clone(), Expected::Unchanged(judged));
            outcome(change, "")
        };
        let before = run();
        // The same file, of the same size. The kernel's clock may not have moved on yet.
        while Version::of(&path).unwrap() == judged {
            overwrite(&path, b"#!/bin/sh\necho two\n").unwrap();
        }
        assert_eq!(Identity::of(&path).unwrap(), judged.identity());
        format!("{before}|{}", run())
    });
    assert_eq!(text, "None [Exited(0)] one\n|Some(\"identity\") [Exited(127)]");
}

#[test]
fn a_chain_of_sessions_is_killed_to_the_last_member() {
    let text = in_a_process("chain", || {
        adopt_orphans().unwrap();
        chain_of_sessions(4);
        freeze_and_kill().unwrap();
        format!("{:?}", wait_for_all())
    });
    assert_eq!(text, "[Signalled(9), Signalled(9), Signalled(9), Signalled(9)]");
}

/// Each process of the line starts the next in a new session and ends. It stops by itself after a while, so that a
/// failing test does not go on for ever.
fn succession(generations: u32) {
    for _ in 0..generations {
        match fork().unwrap() {
            Fork::Parent(_) => end(0),
            Fork::Child => own_session().unwrap(),
        }
    }
    end(0);
}

#[test]
fn lines_of_succession_as_fast_as_the_kernel_allows_are_killed() {
    let text = in_a_process("succession", || {
        adopt_orphans().unwrap();
        for _ in 0..4 {
            if let Fork::Child = fork().unwrap() {
                succession(100_000);
            }
        }
        let (mut killed, mut others) = (0, Vec::new());
        for calls in 1.. {
            freeze_and_kill().unwrap();
            loop {
                match reap().unwrap() {
                    // A stopped member whose parent ends before it has its own session is hung up on by the kernel
                    // (an orphaned process group with stopped members, setpgid(2)).
                    Reaped::Child(_, End::Signalled(9 | 1)) => killed += 1,
                    Reaped::Child(_, End::Exited(0)) => {}
                    Reaped::Child(_, end) => others.push(end),
                    Reaped::Running => break,
                    Reaped::Nobody => return format!("{} {killed} in {calls} calls, others {others:?}", killed >= 4),
                }
            }
        }
        "never".to_owned()
    });
    // At least one of each line was alive to be killed; none came to its natural end.
    assert!(text.starts_with("true "), "{text}");
}

#[test]
fn stopped_processes_are_woken_to_end_by_themselves() {
    let text = in_a_process("stopped", || {
        adopt_orphans().unwrap();
        let (reader, writer) = pipe_pair();
        let script = "trap 'exit 5' TERM; echo up; kill -STOP $$; while :; do :; done";
        let (spawned, _) = shell(script, writer).start(PATIENCE).unwrap();
        let mut line = [0; 3];
        File::from(reader).read_exact(&mut line).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", spawned.pid)).unwrap();
        while !stat().contains(") T ") {}
        continue_and_terminate().unwrap();
        format!("{:?}", wait_for_all())
    });
    assert_eq!(text, "[Exited(5)]");
}

#[test]
fn a_child_is_one_until_it_is_waited_for_and_has_ended_before() {
    let text = in_a_process("looked at", || {
        let (reader, writer) = std::io::pipe().unwrap();
        let Fork::Parent(child) = fork().unwrap() else {
            drop(writer);
            drop((&reader).read(&mut [0]));
            nix::sys::signal::raise(Signal::SIGKILL).unwrap();
            end(0)
        };
        let alive = (is_child(child), has_ended(child));
        drop(writer);
        while !has_ended(child) {
            std::thread::yield_now();
        }
        let ended = (is_child(child), has_ended(child));
        let found = reap().unwrap();
        let buried = (is_child(child), has_ended(child));
        format!("{alive:?} {ended:?} {} {buried:?}", found == Reaped::Child(child, End::Signalled(9)))
    });
    assert_eq!(text, "(true, false) (true, true) true (false, true)");
}

/// As an account that has no key besides: what one has counts against it on the whole host.
fn keyring_without_room(account: u32, holds_a_key: bool) -> String {
    in_a_process(&format!("keys-{account}"), || {
        nix::unistd::setuid(nix::unistd::Uid::from_raw(account)).unwrap();
        own_keyring().unwrap();
        if holds_a_key {
            attempt::hold_key("mine").unwrap();
        }
        let word = |done: std::io::Result<()>| {
            done.map_or_else(
                |error| format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap())),
                |()| "done".into(),
            )
        };
        let room = word(attempt::hold_keys_until_there_is_no_room());
        format!("{room} {} {}", word(own_keyring()), word(own_or_empty_keyring()))
    })
}

#[test]
fn where_there_is_no_room_for_a_keyring_an_empty_one_will_do_and_no_other() {
    assert!(crate::sys::user::is_root(), "another account's room is used up");
    assert_eq!(keyring_without_room(61_242, false), "EDQUOT EDQUOT done");
    assert_eq!(keyring_without_room(61_243, true), "EDQUOT EDQUOT EDQUOT");
}
