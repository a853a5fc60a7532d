//! The death of a process, and who else feels it.

use nix::sys::signal::Signal;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::site::Builder;
use crate::harness::{Site, eventually, host};

/// Waits for a file, and tells its own number and that of a child that is deaf to a polite request.
const WAIT: &str = "(trap '' TERM; exec sleep 300) & echo $! > {work}/child; echo $$ > {work}/leader\n\
                    while [ ! -e {work}/go ]; do sleep 0.02; done; kill -9 $!; echo done";

fn site() -> Builder {
    Site::builder().sh("wait", WAIT).sh("ok", "echo ran").section("kill_grace = 0")
}

fn dead(pid: u32) {
    eventually(&format!("the end of process {pid}"), || (!host::alive(pid)).then_some(()));
}

#[test]
fn a_killed_executor_disturbs_no_run_and_the_next_run_starts_another() {
    for mode in [Mode::Private, Mode::Own] {
        let site = site().executor(mode).start();
        let agent = site.agent();
        let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
        agent.worked("leader");
        let first = agent.executor();
        for signal in [Signal::SIGKILL, Signal::SIGTERM] {
            let killed = agent.executor();
            host::kill(killed, signal);
            dead(killed);
            assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
            assert_ne!(agent.executor(), killed);
        }
        assert_ne!(agent.executor(), first);
        std::fs::write(agent.work("go"), "").unwrap();
        assert_eq!(run.end().exits(0).result()["stdout"], "done\n");
    }
}

#[test]
fn a_killed_executor_is_replaced_at_a_reload_too() {
    for mode in [Mode::Private, Mode::Own] {
        let site = site().executor(mode).start();
        let killed = site.agent().executor();
        host::kill(killed, Signal::SIGKILL);
        dead(killed);
        site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    }
}

#[test]
fn executors_that_cannot_start_leave_no_zombies() {
    let site = site().executor(Mode::Private).start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("{config}\nnonsense\n")).unwrap();
    let killed = agent.executor();
    host::kill(killed, Signal::SIGKILL);
    dead(killed);
    for _ in 0..10 {
        assert_eq!(site.result("ok", &[])["reason"], "executor-failed");
    }
    eventually("no zombie", || (host::zombies(agent.pid()) == 0).then_some(()));
    std::fs::write(agent.config(), config).unwrap();
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn many_runs_survive_an_executor_that_dies_again_and_again() {
    let site = site().executor(Mode::Private).sh("short", "sleep 0.05; echo ran").start();
    let start = |_| Background::start(site.control_command(&["--json", "run", "agent1", "short"]));
    let runs: Vec<Background> = (0..24).map(start).collect();
    for _ in 0..6 {
        // Between two executors there may be none.
        for executor in host::children(site.agent().pid()) {
            host::kill(executor, Signal::SIGKILL);
        }
        std::thread::yield_now();
    }
    for run in runs {
        let result = run.end().result();
        let told = result["reason"] == "executor-failed" || result["reason"] == "outcome-unknown";
        assert!(result["stdout"] == "ran\n" || told, "{result}");
    }
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_killed_agent_leaves_no_script_and_no_process() {
    for mode in [Mode::Private, Mode::Own] {
        let mut site = site().executor(mode).start();
        let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
        let [leader, child] = ["leader", "child"].map(|name| site.agent().worked_pid(name));
        let executor = site.agent().executor();
        let monitors = host::children(executor);
        assert_eq!(monitors.len(), 1);
        site.agent_mut().kill();
        [leader, child, executor, monitors[0]].into_iter().for_each(dead);
        let result = run.end().exits(1).result();
        assert!(result["error"].as_str().unwrap().contains("the outcome is unknown"), "{result}");
    }
}

#[test]
fn a_stopped_agent_ends_its_attached_scripts() {
    let mut site = site().start();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    let [leader, child] = ["leader", "child"].map(|name| site.agent().worked_pid(name));
    assert_eq!(site.agent_mut().stop(), Some(0));
    [leader, child].into_iter().for_each(dead);
    run.end().exits(1);
}

#[test]
fn a_script_that_is_killed_from_outside_ends_its_run_alone() {
    let site = site().start();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    let [leader, child] = ["leader", "child"].map(|name| site.agent().worked_pid(name));
    host::kill(leader, Signal::SIGKILL);
    let result = run.end().exits(1).result();
    assert_eq!((&result["exit"], &result["reason"]), (&126.into(), &"killed by signal 9".into()), "{result}");
    host::kill(child, Signal::SIGKILL);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn runs_leave_no_zombies_and_no_open_descriptors_behind() {
    let site = site().start();
    let agent = site.agent();
    let count = || std::fs::read_dir(format!("/proc/{}/fd", agent.executor())).unwrap().count();
    // A monitor has a line to the executor for as long as it lives, and how many there are is a matter of luck.
    let alone = || eventually("no monitor", || host::children(agent.executor()).is_empty().then_some(()));
    site.result("ok", &[]);
    alone();
    let before = count();
    for _ in 0..10 {
        site.result("ok", &[]);
    }
    alone();
    eventually("what the executor had before", || (count() <= before).then_some(()));
}

/// Leaves a child's child without a parent, and waits for a file.
const LEAVES: &str = "sh -c 'sleep 300 < /dev/null > /dev/null 2>&1 & echo $! > {work}/orphan'; echo $$ > {work}/leader\n\
                      while [ ! -e {work}/go ]; do sleep 0.02; done";

#[test]
fn an_orphan_falls_to_the_monitor_of_a_script_that_is_not_confined_and_else_to_the_runs_own_init() {
    for mode in Mode::ALL {
        let site = Site::builder().executor(mode).sh("leaves", LEAVES).start();
        let agent = site.agent();
        let run = Background::start(site.control_command(&["--json", "run", "agent1", "leaves"]));
        let [leader, orphan] = ["leader", "orphan"].map(|name| agent.worked_pid(name));
        let monitor = host::parent(leader);
        assert!(host::leads_session(monitor), "{mode:?}");
        if mode == Mode::Private {
            eventually("the monitor's child", || (host::parent(orphan) == monitor).then_some(()));
            host::kill(orphan, Signal::SIGKILL);
        } else {
            // The leader's parent is outside of its namespace, and nobody in there has one there but the first.
            let init = eventually("an init", || {
                Some(host::parent(orphan)).filter(|above| *above != leader && host::numbered(1).contains(above))
            });
            assert_eq!(host::parent(init), monitor, "{mode:?}");
        }
        std::fs::write(agent.work("go"), "").unwrap();
        run.end().exits(0);
        dead(orphan);
    }
}
