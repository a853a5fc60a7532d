//! A root executor's runs: who a script is, what it may use, and how it ends.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::attempts::tries;
use super::harness::{Executor, order, until};
use crate::sys::cgroup::Delegation;
use crate::sys::user::Account;
use crate::wire::order::Mode;
use crate::wire::outcome::Outcome;

/// The capability sets of the process that runs it.
const SETS: &str = "grep -E '^Cap' /proc/self/status | tr -d '\\t' | tr '\\n' ' '";

fn sets(all: &str) -> String {
    ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:{all} ")).concat()
}

#[test]
fn a_script_runs_as_its_account_with_its_groups_and_is_not_process_one() {
    let executor = Executor::root("run_as = nobody");
    let (outcome, out, errors) =
        executor.shell("id -un; [ $$ -eq 1 ] && echo yes $PPID || echo no $PPID; exit 3", &[]).finish();
    assert_eq!((outcome, out.as_str(), errors.as_str()), (Outcome::Exited { code: 3 }, "nobody\nno 0\n", ""));
    let by_number = Executor::root("run_as = 61234");
    assert_eq!(by_number.says("id -u; id -g; id -G; echo $HOME; pwd"), "61234\n61234\n61234\n/\n/\n");
    let games = Executor::root("run_as = games");
    let account = Account::by_name("games").unwrap().unwrap();
    let groups: Vec<String> = account.groups().unwrap().iter().map(ToString::to_string).collect();
    let home = account.home().display();
    assert_eq!(games.says("id -G; echo $USER $LOGNAME $HOME"), format!("{}\ngames games {home}\n", groups.join(" ")));
}

#[test]
fn an_account_that_does_not_exist_or_is_the_agents_own_is_refused() {
    for (account, code) in [("no-such-user", "run-as-unknown"), ("daemon", "run-as-agent"), ("1", "run-as-agent")] {
        let executor = Executor::root(&format!("run_as = {account}"));
        match executor.shell("echo ran", &[]).finish() {
            (Outcome::Refused(refusal), ..) => assert_eq!(refusal.code(), code, "{account}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_profile_without_an_account_starts_no_root_executor() {
    let executor = Executor::spawn_root(&[], "");
    let crate::wire::control::Reloaded::Failed { text } = executor.answer() else { panic!("not failed") };
    assert!(text.contains("no run_as"), "{text}");
}

#[test]
fn capabilities_are_exactly_the_listed_ones_for_every_account() {
    for account in ["nobody", "root"] {
        let none = Executor::root(&format!("run_as = {account}"));
        assert_eq!(none.says(SETS), sets("0000000000000000"), "{account}");
        let two = Executor::root(&format!("run_as = {account}\ncaps = CAP_NET_ADMIN,CAP_NET_BIND_SERVICE"));
        assert_eq!(two.says(SETS), sets("0000000000001400"), "{account}");
    }
}

#[test]
fn what_takes_a_capability_fails_without_and_works_with_it() {
    // A network of its own has its own setting of who may have which port.
    let ways = ["own {}/open/file 12345", "bind 0.0.0.0:81"];
    for (caps, answers) in [
        ("", ["EPERM", "EACCES"]),
        ("caps = CAP_CHOWN", ["done", "EACCES"]),
        ("caps = CAP_NET_BIND_SERVICE", ["EPERM", "done"]),
    ] {
        let executor = Executor::root(&format!("run_as = root\nnetwork = no\n{caps}"));
        executor.write("open/file", "");
        assert_eq!(tries(&executor, &ways), answers, "{caps}");
        let owner = std::fs::metadata(executor.path("open/file")).unwrap().uid();
        assert_eq!(owner == 12345, caps.ends_with("CHOWN"));
    }
}

#[test]
fn a_set_user_id_program_gives_back_no_capability() {
    let copy = |executor: &Executor| {
        // By another process: a fork elsewhere in this one could keep a copy open for writing, and exec would fail.
        #[expect(clippy::disallowed_methods, reason = "see above")]
        let mut install = std::process::Command::new("install");
        install.args(["-m", "4755", "/bin/grep"]).arg(executor.path("other/suid"));
        assert!(install.status().unwrap().success());
    };
    let text = "{}/other/suid -E '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' '";
    let none = "CapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 0000000000000000\n";
    for writable in ["", "\nwritable = {}/other"] {
        let strict = Executor::root(&format!("run_as = nobody{writable}"));
        copy(&strict);
        assert_eq!(strict.says(text), format!("Uid: 65534 65534 65534 65534\n{none}NoNewPrivs: 1\nSeccomp: 2\n"));
        let loose = Executor::root(&format!("run_as = nobody\nno_new_privileges = no{writable}"));
        copy(&loose);
        // Root by name, without any right of root's beyond owning files, and still behind the filter.
        assert_eq!(loose.says(text), format!("Uid: 65534 0 0 0\n{none}NoNewPrivs: 0\nSeccomp: 2\n"));
    }
}

#[test]
fn a_capability_that_the_executor_lacks_is_refused_by_name() {
    let starter = ["setpriv", "--bounding-set=-net_raw"];
    let executor = Executor::root_under(&starter, "run_as = nobody\ncaps = CAP_NET_RAW,CAP_CHOWN");
    match executor.shell("echo ran", &[]).outcome() {
        Outcome::NotConfined { step, reason } => {
            assert!(step == "caps" && reason.starts_with("CAP_NET_RAW cannot be given"), "{step} {reason}");
        }
        other => panic!("{other:?}"),
    }
    let twin = Executor::root_under(&starter, "run_as = nobody\ncaps = CAP_CHOWN");
    assert_eq!(twin.says(SETS), sets("0000000000000001"));
}

#[test]
fn nothing_runs_where_the_executor_lacks_a_capability_for_its_own_work_and_the_refusal_names_it() {
    for (missing, names) in [
        ("sys_admin", &["SYS_ADMIN"][..]),
        ("sys_chroot", &["SYS_CHROOT"]),
        ("setpcap", &["SETPCAP"]),
        ("setuid", &["SETUID"]),
        ("setgid", &["SETGID"]),
        ("kill", &["KILL"]),
        ("sys_chroot,-kill", &["SYS_CHROOT", "KILL"]),
    ] {
        let executor = Executor::root_under(&["setpriv", &format!("--bounding-set=-{missing}")], "run_as = nobody");
        // Also of a run that the monitor makes after another.
        for _ in 0..2 {
            let (outcome, out, _) = executor.shell("echo ran", &[]).finish();
            let Outcome::NotConfined { reason, .. } = outcome else { panic!("{missing}: {outcome:?}") };
            let all = names.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>().join(", ");
            let told = reason.starts_with("the executor is not permitted to ") && out.is_empty();
            assert!(told && reason.contains(&format!(": it has no {all} (")), "{missing}: {reason}");
            let remedy = names.iter().map(|name| format!("--cap-add {name}")).collect::<Vec<_>>().join(" ");
            assert!(reason.contains("CapabilityBoundingSet=") && reason.contains(&remedy), "{missing}: {reason}");
        }
    }
}

/// Those that [`nothing_runs_where_the_executor_lacks_a_capability_for_its_own_work_and_the_refusal_names_it`] takes away one by
/// one are all that it takes.
#[test]
fn an_executor_with_the_capabilities_for_its_own_work_and_no_other_runs_scripts_and_ends_what_they_leave() {
    let few = "--bounding-set=-all,+sys_admin,+sys_chroot,+setpcap,+setuid,+setgid,+kill";
    for (more, profile) in [
        ("", "run_as = nobody"),
        ("", "run_as = root"),
        ("", "run_as = games\nreadable = /usr:/bin:/lib:/lib64:/etc\nnetwork = no\nfiles_max = 64"),
        (",+dac_override", "run_as = games\nwritable = {}/open"),
        (",+dac_read_search", "run_as = games\nwritable = {}/open"),
    ] {
        let executor = Executor::root_under(&["setpriv", &format!("{few}{more}")], profile);
        let (outcome, out, _) = executor.shell("sleep 1000 & echo ran", &[]).finish();
        assert_eq!((outcome, &*out), (Outcome::Exited { code: 0 }, "ran\n"), "{profile}");
    }
    let executor = Executor::root_under(&["setpriv", few], "run_as = games\nwritable = {}/open");
    let Outcome::NotConfined { reason, .. } = executor.shell("echo ran", &[]).outcome() else { panic!("it ran") };
    assert!(reason.contains("it has no CAP_DAC_OVERRIDE (") && reason.contains("--cap-add DAC_OVERRIDE)"), "{reason}");
}

#[test]
fn a_run_for_which_no_signal_may_wait_says_so_and_what_to_do() {
    let executor = Executor::root_under(&["prlimit", "--sigpending=0:0"], "run_as = nobody");
    let Outcome::NotConfined { step, reason } = executor.shell("echo ran", &[]).outcome() else { panic!("it ran") };
    assert_eq!(step, "process-namespace", "{reason}");
    assert!(
        reason.contains("signals wait for processes of uid 0 as may (") && reason.contains("LimitSIGPENDING="),
        "{reason}"
    );
}

#[test]
fn nothing_runs_where_the_groups_of_its_account_cannot_be_set() {
    let profile = "run_as = games";
    let executor = Executor::root_under(&["setpriv", "--bounding-set=-setgid"], profile);
    match executor.shell("echo ran", &[]).finish() {
        (Outcome::NotConfined { step, reason }, out, _) => {
            assert!(step == "groups" && out.is_empty() && reason.contains("not permitted"), "{step} {reason} {out}");
        }
        other => panic!("{other:?}"),
    }
    let twin = Executor::root_under(&["setpriv", "--bounding-set=-net_raw"], profile);
    assert_eq!(twin.says("echo ran"), "ran\n");
}

#[test]
fn nothing_runs_where_the_groups_of_its_account_cannot_be_looked_up() {
    // A file that can be read while that process lives, and has no group in it.
    #[expect(clippy::disallowed_methods, reason = "a process that does nothing")]
    let mut process = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let text = format!("mount --bind /proc/{}/status /etc/group && exec \"$@\"", process.id());
    let executor = Executor::root_under(&["unshare", "--mount", "sh", "-c", &text, "sh"], "run_as = games");
    assert_eq!(executor.says("echo ran"), "ran\n");
    process.kill().unwrap();
    process.wait().unwrap();
    match executor.shell("echo ran", &[]).finish() {
        (Outcome::Refused(refusal), out, _) => {
            assert!(refusal.code() == "run-as-unknown" && out.is_empty(), "{refusal:?} {out}");
            assert!(refusal.text().contains("/etc/group cannot be read"), "{refusal:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn umask_environment_and_working_directory_are_the_profiles() {
    let executor = Executor::root(
        "run_as = nobody\numask = 0077\nworking_directory = /usr/bin\nenvironment = PATH=/bin:/usr/bin GREETING=\"good day\"",
    );
    assert_eq!(
        executor.says("umask; pwd; echo $PATH; echo $GREETING; echo $SECRET$LANG"),
        "0077\n/usr/bin\n/bin:/usr/bin\ngood day\n\n"
    );
    let executor = Executor::root("run_as = nobody\nworking_directory = /root");
    match executor.shell("echo ran", &[]).outcome() {
        Outcome::NotStarted { step, .. } => assert_eq!(step, "directory"),
        Outcome::Exited { .. } if std::fs::metadata("/root").is_ok_and(|facts| facts.mode() & 1 != 0) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn files_are_made_with_the_profiles_umask() {
    for (line, mode) in [("", 0o644), ("umask = 0077", 0o600), ("umask = 002", 0o664)] {
        let executor = Executor::root(&format!("run_as = nobody\n{line}"));
        assert_eq!(executor.says("> {}/open/made; umask 0; > {}/open/open"), "");
        let found = |name: &str| std::fs::metadata(executor.path(name)).unwrap().mode() & 0o7777;
        assert_eq!((found("open/made"), found("open/open")), (mode, 0o666), "{line}");
    }
}

#[test]
fn the_profiles_time_is_up_when_it_is_and_not_before() {
    let executor = Executor::root("run_as = nobody\ntimeout = 1\nkill_grace = 0");
    // On a busy machine a script may not have got as far.
    until("a script that is up before its time is", || {
        let mut run = executor.shell(STUBBORN, &[]);
        let is_up = run.line() == "up";
        assert_eq!(run.outcome(), Outcome::TimedOut { limit_ms: 1000 });
        assert!(run.everyone_is_gone());
        is_up
    });
    let twin = Executor::root("run_as = nobody\ntimeout = 60\nkill_grace = 0");
    assert_eq!(twin.shell("sleep 1; exit 4", &[]).outcome(), Outcome::Exited { code: 4 });
}

#[test]
fn processes_are_limited() {
    let executor = Executor::root("run_as = 61235\nprocesses_max = 5");
    let said = executor.says("for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; echo started");
    assert!(said.contains("fork") && !said.contains("started"), "{said}");
    let twin = Executor::root("run_as = 61236\nprocesses_max = 20");
    assert_eq!(twin.says("for i in 1 2 3 4 5 6 7 8; do sleep 60 & done; echo started"), "started\n");
}

#[test]
fn limits_on_a_whole_run_hold_or_refuse_it() {
    let available = Delegation::find().and_then(|here| here.controllers()).unwrap_or_default();
    let reason = |profile: &str| match Executor::root(profile).shell("echo ran", &[]).outcome() {
        Outcome::NotConfined { step, reason } => format!("{step}: {reason}"),
        other => panic!("{other:?}"),
    };
    if available.memory {
        let executor = Executor::root("run_as = nobody\nmemory_max = 64MiB");
        let outcome = executor.shell("x=$(head -c 1000000000 /dev/zero | tr '\\0' x); echo ran", &[]).outcome();
        assert_eq!(outcome, Outcome::OutOfMemory { limit: 64 << 20 });
        assert_eq!(executor.says("echo ran"), "ran\n");
    } else {
        let text = reason("run_as = nobody\nmemory_max = 64MiB");
        assert!(text.starts_with("memory_max: ") && text.contains("Delegate=yes"), "{text}");
    }
    if !available.cpu {
        assert!(reason("run_as = nobody\ncpu_max = 50").starts_with("cpu_max: "));
    }
    if !available.processes {
        let text = reason("run_as = root\nprocesses_max = 5");
        assert!(text.starts_with("processes_max: ") && text.contains("does not bind"), "{text}");
    }
}

#[test]
fn the_end_of_a_script_is_told_as_it_is() {
    let executor = Executor::root("run_as = nobody");
    for code in [0, 1, 126, 127, 255] {
        assert_eq!(executor.shell("exit $0", &[&code.to_string()]).outcome(), Outcome::Exited { code });
    }
    for signal in [1, 9, 15, 34] {
        assert_eq!(executor.shell("kill -$0 $$", &[&signal.to_string()]).outcome(), Outcome::Signalled { signal });
    }
    assert_eq!(
        executor.shell("trap '' TERM; kill -TERM 1; kill -KILL 1; exit 6", &[]).outcome(),
        Outcome::Exited { code: 6 }
    );
}

#[test]
fn a_daemon_that_is_left_behind_ends_with_its_run() {
    let executor = Executor::root("run_as = nobody");
    let mut run =
        executor.shell("setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1000; done' & echo up; exit 4", &[]);
    assert_eq!(run.line(), "up");
    assert_eq!(run.outcome(), Outcome::Exited { code: 4 });
    assert!(run.everyone_is_gone());
}

/// Deaf, in sessions of their own.
const STUBBORN: &str = "trap '' TERM; setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1000; done' & \
    echo up; while :; do sleep 1000; done";

#[test]
fn a_stubborn_tree_is_gone_when_its_cancellation_or_its_time_limit_is_told() {
    let executor = Executor::root("run_as = nobody\nkill_grace = 0");
    let mut run = executor.shell(STUBBORN, &[]);
    assert_eq!(run.line(), "up");
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert!(run.everyone_is_gone());
    let limit_ms = Cell::new(150);
    until("a script that is up before its time is", || {
        // On a busy machine it takes more.
        limit_ms.update(|millis| millis * 2);
        let limit = Some(std::time::Duration::from_millis(limit_ms.get()));
        let mut run = executor.run(&order("sh", &["-c", STUBBORN], Mode::Attached).time_limit(limit));
        let is_up = run.line() == "up";
        assert_eq!(run.outcome(), Outcome::TimedOut { limit_ms: limit_ms.get() });
        assert!(run.everyone_is_gone());
        is_up
    });
}

#[test]
fn a_script_is_asked_to_end_before_it_is_killed() {
    let executor = Executor::root("run_as = nobody\nkill_grace = 60");
    let mut run = executor.shell("trap 'echo tidy; exit 0' TERM; echo up; sleep 1000 & wait", &[]);
    assert_eq!(run.line(), "up");
    run.cancel();
    assert_eq!(run.outcome(), Outcome::Cancelled);
    assert_eq!(run.rest(), "tidy\n");
}

#[test]
fn a_front_end_that_goes_away_ends_an_attached_run() {
    let executor = Executor::root("run_as = nobody\nkill_grace = 0");
    let mut run = executor.shell(STUBBORN, &[]);
    assert_eq!(run.line(), "up");
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut run.connection, ours));
    assert_eq!(run.rest(), "");
    until("the audit line", || executor.log().contains("OUTCOME=cancelled"));
}

#[test]
fn nobody_outlives_a_monitor_that_is_killed() {
    let executor = Executor::root("run_as = nobody");
    for mode in [Mode::Attached, Mode::Detached] {
        let mut run = executor.run(&order("sh", &["-c", STUBBORN], mode));
        let init = run.started();
        assert_eq!(run.line(), "up");
        let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
        let monitor = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
        kill(Pid::from_raw(monitor), Signal::SIGKILL).unwrap();
        assert_eq!(run.rest(), "");
    }
}

#[test]
fn a_run_whose_init_is_killed_is_told_as_killed_and_never_as_an_exit() {
    let executor = Executor::root("run_as = nobody");
    let mut run = executor.shell(STUBBORN, &[]);
    let init = run.started();
    assert_eq!(run.line(), "up");
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    assert_eq!(run.outcome(), Outcome::Signalled { signal: 9 });
    assert!(run.everyone_is_gone());
}

#[test]
fn input_and_both_outputs_are_the_orders() {
    let executor = Executor::root("run_as = nobody\nwritable = {}/open");
    let mut run = executor.shell("cat; echo wrong >&2", &[]);
    run.stdin.as_mut().unwrap().write_all(b"context").unwrap();
    assert_eq!(run.finish(), (Outcome::Exited { code: 0 }, "context".into(), "wrong\n".into()));
}
