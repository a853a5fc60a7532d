//! What a script gets, and how its own end is told.

use std::io::Write;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::harness::{Executor, order, until};
use crate::wire::order::{Mode, Report};
use crate::wire::outcome::Outcome;

#[test]
fn every_exit_status_is_told_as_it_is() {
    let executor = Executor::start();
    for code in [0, 1, 2, 126, 127, 128, 255] {
        let (outcome, ..) = executor.shell("exit $0", &[&code.to_string()]).finish();
        assert_eq!(outcome, Outcome::Exited { code });
    }
}

#[test]
fn a_signal_is_told_by_its_number() {
    let executor = Executor::start();
    for signal in [1, 6, 9, 15, 34, 64] {
        let (outcome, ..) = executor.shell("kill -$0 $$", &[&signal.to_string()]).finish();
        assert_eq!(outcome, Outcome::Signalled { signal });
    }
}

#[test]
fn the_start_is_told_with_the_process_id_before_the_end() {
    let executor = Executor::start();
    let mut run = executor.shell("echo $$; read x", &[]);
    let pid = run.started();
    assert_eq!(run.line(), pid.to_string());
    run.stdin = None;
    assert_eq!(run.report(), Some(Report::Ended(Outcome::Exited { code: 1 })));
    assert_eq!(run.report(), None);
}

#[test]
fn arguments_arrive_unchanged() {
    let executor = Executor::start();
    let args = ["", "ünïcode \u{1F600}", "two\nlines", "-x", "a b", "'\"$(id)`", "*", "\u{1}\u{7f}"];
    let (outcome, out, _) = executor.shell("printf '%s\\0' \"$@\"", &[&["sh"], &args[..]].concat()).finish();
    assert_eq!(outcome, Outcome::Exited { code: 0 });
    assert_eq!(out.split_terminator('\0').collect::<Vec<_>>(), args);
}

#[test]
fn the_most_and_the_longest_arguments_arrive() {
    let executor = Executor::start();
    let long = "x".repeat(128 * 1024 - 1);
    let mut args = vec!["y"; 256 - 3 - 7];
    args.extend([long.as_str(); 7]);
    let (_, out, errors) = executor.shell("echo $#; echo ${#*}", &[&["sh"], &args[..]].concat()).finish();
    assert_eq!((out.lines().next(), errors.as_str()), (Some("253"), ""));
}

#[test]
fn the_environment_is_the_documented_one() {
    let executor = Executor::with(&json!({"scripts": {"env": "/usr/bin/env"}}));
    let (_, out, _) = executor.run(&order("env", &[], Mode::Attached)).finish();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(out, format!("{path}\nHOME=/home/x\nLANG=C.UTF-8\n"));
}

#[test]
fn a_script_has_its_own_session_root_as_directory_and_the_usual_umask() {
    let executor = Executor::start();
    let run = executor.shell("echo $$ $(cut -d' ' -f5,6 /proc/$$/stat); pwd; umask", &[]);
    let pid = run.started();
    let (_, out, _) = run.finish();
    assert_eq!(out, format!("{pid} {pid} {pid}\n/\n0022\n"));
}

#[test]
fn a_script_starts_with_no_signal_blocked_or_ignored() {
    // Without a shell in between: some ignore a signal of their own.
    let executor = Executor::with(&json!({"scripts": {"grep": "/bin/grep"}}));
    let signals = order("grep", &["-E", "Sig(Blk|Ign)", "/proc/self/status"], Mode::Attached);
    let (_, out, _) = executor.run(&signals).finish();
    let none = "0000000000000000";
    assert_eq!(out, format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
}

#[test]
fn a_script_holds_three_descriptors_and_no_socket_of_ours() {
    let executor = Executor::start();
    let (_, out, _) = executor.shell("ls -l /proc/$$/fd", &[]).finish();
    let lines = out.lines().filter_map(|line| line.split_once(" -> "));
    let kinds: Vec<String> =
        lines.map(|(left, right)| format!("{} {}", &left[left.len() - 1..], &right[..5])).collect();
    assert_eq!(kinds, ["0 pipe:", "1 pipe:", "2 pipe:"], "{out}");
}

#[test]
fn input_output_and_errors_are_the_descriptors_of_the_order() {
    let executor = Executor::start();
    let mut run = executor.shell("cat; echo wrong >&2", &[]);
    run.stdin.as_mut().unwrap().write_all(b"context").unwrap();
    assert_eq!(run.finish(), (Outcome::Exited { code: 0 }, "context".into(), "wrong\n".into()));
}

#[test]
fn a_script_may_ignore_its_input_and_close_its_output() {
    let executor = Executor::start();
    let run = executor.shell("exec <&- >&- 2>&-; exit 3", &[]);
    assert_eq!(run.outcome(), Outcome::Exited { code: 3 });
}

#[test]
fn a_program_that_cannot_be_executed_is_told_with_its_reason() {
    let executor = Executor::start();
    let plain = executor.script("plain", "no first line");
    let orphan = executor.script("orphan", "#!/no/such/interpreter\n");
    let scripts = json!({"none": "/no/such/file", "data": "/etc/passwd", "plain": plain, "orphan": orphan, "dir": "/"});
    executor.set_policy(&json!({"scripts": scripts}).to_string());
    executor.reload();
    let reason = |name: &str| match executor.run(&order(name, &[], Mode::Attached)).outcome() {
        Outcome::NotStarted { step, reason } if step == "exec" => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason("none").starts_with("/no/such/file: No such file"));
    assert!(reason("data").contains("may not execute"));
    assert!(reason("dir").contains("may not execute"));
    assert!(reason("plain").contains("needs a '#!' line"));
    assert!(reason("orphan").contains("'#!' line names is not"));
}

#[test]
fn argv_zero_is_the_configured_path_and_the_judged_file_is_what_runs() {
    let executor = Executor::start();
    let real = executor.script("real", "#!/bin/sh\necho \"$0\"\n");
    let link = executor.path("link");
    symlink(&real, &link).unwrap();
    let shell = executor.path("sh");
    symlink("/bin/sh", &shell).unwrap();
    let mut policy = json!({"scripts": {"link": link, "shell": shell}});
    let out = |name: &str, args: &[&str]| executor.run(&order(name, args, Mode::Attached)).finish().1;
    executor.set_policy(&policy.to_string());
    executor.reload();
    assert_eq!(out("link", &[]).trim_end(), link.to_str().unwrap());
    policy["script_dirs"] = json!(["/usr", "/bin", executor.path("")]);
    executor.set_policy(&policy.to_string());
    executor.reload();
    assert_eq!(out("link", &[]).trim_end(), real.to_str().unwrap());
    let name = out("shell", &["-c", "tr '\\0' '\\n' < /proc/$$/cmdline | head -1"]);
    assert_eq!(name.trim_end(), shell.to_str().unwrap());
}

#[test]
fn only_the_monitor_of_a_script_that_is_not_confined_adopts_orphans() {
    let executors = [(Executor::start(), "true"), (Executor::root("run_as = nobody"), "false")];
    for (executor, adopts) in executors {
        let (outcome, ..) = executor.shell("true", &[]).finish();
        assert_eq!(outcome, Outcome::Exited { code: 0 });
        until("the line", || executor.log().contains("ACTION=exec "));
        let log = executor.log();
        assert!(log.lines().all(|line| line.starts_with(&format!("adopts={adopts} "))), "{log}");
    }
}

#[test]
fn a_daemon_that_a_script_leaves_behind_lives_and_does_not_delay_the_outcome() {
    let executor = Executor::start();
    let mut run = executor.shell("sh -c 'read x; echo done' <&3 & exit 4", &[]);
    assert_eq!(run.outcome(), Outcome::Exited { code: 4 });
    assert!(!run.rest().contains("done"));
    let mut run = executor.shell("exec 3<&0; sh -c 'read x <&3; echo $x' & exit 4", &[]);
    assert_eq!(run.outcome(), Outcome::Exited { code: 4 });
    run.stdin.take().unwrap().write_all(b"alive\n").unwrap();
    assert_eq!(run.rest(), "alive\n");
}
