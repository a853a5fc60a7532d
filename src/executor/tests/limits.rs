//! Limits on a root executor's runs: that they hold where the host lends the means, and that a run is refused where it
//! does not.
//!
//! Most hosts of tests lend none. `cargo xtask vm` boots one that lends all, and says so ([`all_are_lent`]).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::attempts::{become_one, tries};
use super::harness::{Executor, Run, order, until};
use crate::sys::capability;
use crate::sys::cgroup::tests::all_are_lent;
use crate::sys::cgroup::{Controllers, Delegation};
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

/// What an executor that was started by this process can limit.
fn controllers() -> Controllers {
    let lent = Delegation::find().and_then(|here| here.controllers()).unwrap_or_default();
    let all = Controllers { memory: true, processes: true, cpu: true };
    assert!(lent == all || !all_are_lent(), "{lent:?}");
    lent
}

/// Either the limit is applied or the run is refused, by the name of the limit; whether it is applied.
#[track_caller]
fn is_applied(executor: &Executor, key: &str, lent: fn(Controllers) -> bool) -> bool {
    match executor.shell("true", &[]).finish().0 {
        Outcome::Exited { code: 0 } => {
            assert!(lent(controllers()), "nothing can enforce {key}, and the script ran");
            true
        }
        Outcome::NotConfined { step, reason } => {
            assert!(!lent(controllers()), "{step}: {reason}");
            assert!(step == key && reason.contains("Delegate=yes"), "{step}: {reason}");
            false
        }
        other => panic!("{other:?}"),
    }
}

/// Groups of runs that are there now.
fn groups() -> usize {
    let Ok(here) = Delegation::find() else { return 0 };
    let entries = fs::read_dir(here.directory()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("run-")).count()
}

#[test]
fn a_run_beyond_its_memory_ends_as_a_whole_and_as_nothing_else() {
    let executor = Executor::root("run_as = nobody\nmemory_max = 32M");
    if !is_applied(&executor, "memory_max", |lent| lent.memory) {
        return;
    }
    // The shell survives its child everywhere but where the limit ends the run as a whole.
    let (outcome, out, _) = executor.shell("head -c 100000000 /dev/zero | tail -n 1 >/dev/null; echo on", &[]).finish();
    assert_eq!((outcome, out.as_str()), (Outcome::OutOfMemory { limit: 32 << 20 }, ""));
    let (outcome, out, _) = executor.shell("head -c 1000000 /dev/zero | tail -n 1 | wc -c", &[]).finish();
    assert_eq!((outcome, out.trim()), (Outcome::Exited { code: 0 }, "1000000"));
    assert_eq!(groups(), 0);
}

#[test]
fn a_run_never_has_more_processes_than_its_profile_says_not_even_as_root() {
    let executor = Executor::root("run_as = root\nprocesses_max = 10");
    if !is_applied(&executor, "processes_max", |lent| lent.processes) {
        return;
    }
    let many = "i=0; while [ $i -lt 30 ]; do sleep 100 & i=$((i + 1)); done; echo all";
    let (_, out, errors) = executor.shell(many, &[]).finish();
    assert!(!out.contains("all") && errors.contains("fork"), "{out} {errors}");
    let few = "for i in 1 2 3 4 5 6; do sleep 0 & done; wait; echo all";
    assert_eq!(executor.shell(few, &[]).finish().1, "all\n");
    assert_eq!(groups(), 0);
}

#[test]
fn processes_of_an_ordinary_account_are_limited_everywhere() {
    // An account of its own, since without groups others of the same account count too.
    let executor = Executor::root("run_as = 61234\nprocesses_max = 10");
    let many = "i=0; while [ $i -lt 30 ]; do sleep 100 & i=$((i + 1)); done; echo all";
    let (_, out, errors) = executor.shell(many, &[]).finish();
    assert!(!out.contains("all") && errors.contains("fork"), "{out} {errors}");
}

#[test]
fn a_script_that_may_become_another_account_has_no_more_processes_than_its_profile_says() {
    let profile = "run_as = 61236\ncaps = CAP_SETUID\nprocesses_max = 10";
    let executor = Executor::root(profile);
    if is_applied(&executor, "processes_max", |lent| lent.processes) {
        assert_eq!(tries(&executor, &["processes-as 0 30", "processes-as 61237 30"]), ["EAGAIN"; 2]);
    }
    // The twin may become nobody else, and is bound by either means.
    let twin = Executor::root("run_as = 61235\ncaps = CAP_SETGID\nprocesses_max = 10");
    assert_eq!(tries(&twin, &["processes-as 61235 30", "processes-as 61235 4"]), ["EAGAIN", "done"]);
}

/// How many signals wait for this user now: every timer that would send one counts as one.
fn waiting() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let text = status.lines().find_map(|line| line.strip_prefix("SigQ:")).unwrap().trim();
    text.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn a_script_of_roots_with_all_the_timers_that_it_can_have_keeps_nobody_else_from_starting() {
    // So few that the host's own are not touched.
    let most = waiting() + 2000;
    let limit = format!("--sigpending={most}:{most}");
    let executor = Executor::root_under(&["prlimit", &limit], "run_as = root");
    let mut run = executor.shell(&become_one(&["timers", "wait"]), &[]);
    let held = std::iter::repeat_with(|| run.line()).find_map(|line| line.strip_prefix("TIMERS ").map(str::to_owned));
    let held: usize = held.unwrap().parse().unwrap();
    assert!((1..=most / 2).contains(&held), "{held} of {most}");
    for _ in 0..3 {
        let said = executor.says("grep pending /proc/self/limits");
        assert_eq!(said.split_whitespace().nth(3), Some((most / 2).to_string().as_str()), "{said}");
    }
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    // The twin: what a script needs in good faith.
    assert_eq!(tries(&executor, &["timers 100"]), ["done"]);
}

#[test]
fn a_run_gets_its_share_of_the_processor_and_no_more() {
    let executor = Executor::root("run_as = nobody\ncpu_max = 10");
    if !is_applied(&executor, "cpu_max", |lent| lent.cpu) {
        return;
    }
    // Fields 16 and 17 of the shell's stat: time of its children, in hundredths of a second (proc_pid_stat(5)).
    let text = "timeout 3 sh -c 'while :; do :; done'; set -- $(cut -d' ' -f16,17 /proc/$$/stat); echo $(($1 + $2))";
    let (_, out, errors) = executor.shell(text, &[]).finish();
    let used: u32 = out.trim().parse().unwrap_or_else(|_| panic!("{out} {errors}"));
    assert!(used < 100, "{used} of 300");
    assert_eq!(groups(), 0);
    let twin = Executor::root("run_as = nobody");
    let used: u32 = twin.says(text).trim().parse().unwrap();
    assert!(used > 100, "{used} of 300");
}

#[test]
fn one_file_too_many_cannot_be_opened_and_one_fewer_can() {
    let executor = Executor::root("run_as = root\nfiles_max = 40");
    assert_eq!(executor.says("ulimit -n; ulimit -Hn"), "40\n40\n");
    assert_eq!(tries(&executor, &["files 40", "files 41", "raise-files"]), ["done", "EMFILE", "EPERM"]);
    let twin = Executor::root("run_as = root\nfiles_max = 41");
    assert_eq!(tries(&twin, &["files 41", "files 42"]), ["done", "EMFILE"]);
}

#[test]
fn a_limit_that_the_script_could_raise_refuses_the_run() {
    let profile = "run_as = root\ncaps = CAP_SYS_RESOURCE\n";
    let outcome = |profile: &str| Executor::root(profile).shell("echo ran", &[]).outcome();
    // Where the executor itself lacks the capability, that is said first.
    let lent = capability::available().unwrap().has(24);
    match outcome(&format!("{profile}files_max = 40")) {
        Outcome::NotConfined { step, reason } if lent => {
            assert!(step == "files_max" && reason.contains("CAP_SYS_RESOURCE"), "{step} {reason}");
        }
        Outcome::NotConfined { step, .. } => assert_eq!(step, "caps"),
        other => panic!("{other:?}"),
    }
    if lent {
        assert_eq!(outcome(profile), Outcome::Exited { code: 0 });
    }
}

#[test]
fn a_monitor_that_was_killed_leaves_no_group_behind() {
    // Root: nothing but a group limits that.
    let executor = Executor::root("run_as = root\nprocesses_max = 10");
    // A host that lends no groups leaves none behind.
    if !is_applied(&executor, "processes_max", |lent| lent.processes) {
        return;
    }
    until("the end of the first run's group", || groups() == 0);
    let run = executor.run(&order("sh", &["-c", "sleep 1000"], Mode::Attached));
    let init = run.started();
    assert_eq!(groups(), 1);
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let monitor: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    crate::sys::process::signal(nix::unistd::Pid::from_raw(monitor), crate::sys::process::Signal::SIGKILL);
    until("the end of the run", || !Path::new(&format!("/proc/{init}")).exists());
    // What a service does when it buries a monitor that was killed: this one does that at the next order.
    executor.shell("true", &[]).outcome();
    until("an empty hierarchy", || crate::executor::confine::sweep(&|_| false));
    assert_eq!(groups(), 0);
}

/// Ignores being asked, and has members in sessions of their own that do too. It may be root, and changes nothing by it.
const STUBBORN: &str = "trap '' TERM; setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' & \
    setsid sh -c 'setsid sleep 1000 & sleep 1000' & echo up; while :; do sleep 1000; done";

/// Runs [`STUBBORN`] in a group and ends it.
#[track_caller]
fn is_gone_with_its_group(limit: Option<Duration>, end: fn(&Run), outcome: &Outcome) {
    for limits in ["processes_max = 20", "memory_max = 64M", "processes_max = 20\nmemory_max = 64M\ncpu_max = 90"] {
        let executor = Executor::root(&format!("run_as = root\nkill_grace = 1\n{limits}"));
        let key = limits.split(' ').next().unwrap();
        if !is_applied(&executor, key, |lent| lent.memory && lent.processes) {
            return;
        }
        let mut run = executor.run(&order("sh", &["-c", STUBBORN], Mode::Attached).time_limit(limit));
        assert_eq!(run.line(), "up");
        assert_eq!(groups(), 1);
        end(&run);
        assert_eq!(&run.outcome(), outcome, "{limits}");
        assert!(run.everyone_is_gone(), "{limits}");
        // The outcome is told first: nobody who waits for it has to wait for the group.
        until("the end of its group", || groups() == 0);
    }
}

// Neither can tell the writing of cgroup.kill from the death of the namespace's first process, which ends everybody by
// itself. The two below can.

#[test]
fn a_stubborn_run_in_a_group_is_gone_with_it_when_it_is_cancelled() {
    is_gone_with_its_group(None, Run::cancel, &Outcome::Cancelled);
}

#[test]
fn a_stubborn_run_in_a_group_is_gone_with_it_when_its_time_is_up() {
    let limit = Duration::from_secs(3);
    is_gone_with_its_group(Some(limit), |_| (), &Outcome::TimedOut { limit_ms: 3000 });
}

/// A process of the host's in the only group of a run, so that the end of that run's namespace is not its own; and the group.
fn stranger_in_the_group() -> (Child, PathBuf) {
    #[expect(clippy::disallowed_methods, reason = "a process that does nothing")]
    let stranger = Command::new("sleep").arg("1000000").spawn().unwrap();
    let here = Delegation::find().unwrap();
    let mut entries = fs::read_dir(here.directory()).unwrap().map(|entry| entry.unwrap().path());
    let group = entries.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("run-")).unwrap();
    let mut members = OpenOptions::new().write(true).open(group.join("cgroup.procs")).unwrap();
    members.write_all(stranger.id().to_string().as_bytes()).unwrap();
    (stranger, group)
}

#[test]
fn the_end_of_a_run_kills_its_group_too_and_not_its_namespace_alone() {
    // Long enough for what comes before it.
    for limit in [None, Some(Duration::from_secs(15))] {
        let executor = Executor::root("run_as = root\nkill_grace = 0\nprocesses_max = 20");
        if !is_applied(&executor, "processes_max", |lent| lent.processes) {
            return;
        }
        until("the end of the first run's group", || groups() == 0);
        let mut run = executor.run(&order("sh", &["-c", STUBBORN], Mode::Attached).time_limit(limit));
        assert_eq!(run.line(), "up");
        let (mut stranger, _) = stranger_in_the_group();
        let outcome = if limit.is_some() { Outcome::TimedOut { limit_ms: 15_000 } } else { Outcome::Cancelled };
        if limit.is_none() {
            run.cancel();
        }
        assert_eq!(run.outcome(), outcome);
        assert!(run.everyone_is_gone(), "{outcome:?}");
        assert_eq!(stranger.wait().unwrap().signal(), Some(9), "{outcome:?}");
        until("the end of its group", || groups() == 0);
    }
}

#[test]
fn where_the_group_cannot_be_killed_the_run_is_gone_with_its_namespace_all_the_same() {
    let executor = Executor::root_under(&["unshare", "--mount"], "run_as = root\nkill_grace = 0\nprocesses_max = 20");
    if !is_applied(&executor, "processes_max", |lent| lent.processes) {
        return;
    }
    until("the end of the first run's group", || groups() == 0);
    let mut run = executor.run(&order("sh", &["-c", STUBBORN], Mode::Attached));
    assert_eq!(run.line(), "up");
    let (mut stranger, group) = stranger_in_the_group();
    // As on a kernel from before 5.14, the monitor has no file there that it could write to.
    let executors = executor.pid().to_string();
    #[expect(clippy::disallowed_methods, reason = "nobody but the executor sees that mount")]
    let status = Command::new("nsenter")
        .args(["--target", &executors, "--mount", "mount", "-t", "tmpfs", "none"])
        .arg(&group)
        .status();
    assert!(status.unwrap().success());
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert!(run.everyone_is_gone());
    assert_eq!(stranger.try_wait().unwrap(), None, "the group was killed after all");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    // As above.
    executor.shell("true", &[]).outcome();
    until("an empty hierarchy", || crate::executor::confine::sweep(&|_| false));
}
