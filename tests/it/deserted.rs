//! Scripts that nothing confines, when executor, agent and monitor are killed one after the other: whoever is left of them is
//! found and ended, no script runs beside it, and whoever was left behind on purpose lives.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host};
use crate::jobs::{Caller, dead};

/// So many members of the family.
const MEMBERS: usize = 5;

/// A family deaf to SIGTERM: in its own session, orphaned, and without anything of the script's environment. Each is known by its
/// last word.
const FAMILY: &str = "trap '' TERM HUP
sh -c 'sleep 3600; true' {work}/kin < /dev/null > /dev/null 2>&1 &
setsid sh -c 'sleep 3600; true' {work}/kin < /dev/null > /dev/null 2>&1 &
(setsid sh -c \"sh -c 'sleep 3600; true' {work}/kin & sleep 3600; true\" {work}/kin < /dev/null > /dev/null 2>&1 &)
(env -i setsid sh -c 'sleep 3600; true' {work}/kin < /dev/null > /dev/null 2>&1 &)
echo up > {work}/up
wait";

/// Ends by itself and leaves somebody, who has a child of his own later.
const LEAVES: &str = "(setsid sh -c 'while [ ! -e {work}/go ]; do sleep 0.01; done; sleep 3600; true' {work}/daemon \
< /dev/null > /dev/null 2>&1 &); echo left";

fn site() -> Site {
    Site::builder().executor(Mode::Private).sh("family", FAMILY).sh("leaves", LEAVES).start()
}

/// The processes whose last word is this file of the site's.
fn of(site: &Site, name: &str) -> Vec<u32> {
    let word = site.agent().work(name).display().to_string();
    host::with_words(|words| words.trim_end_matches('\0').ends_with(&word))
}

/// Waits until the whole family is there: its members, and its monitor.
fn family(site: &Site) -> (Vec<u32>, u32) {
    site.agent().worked("up");
    eventually("a family", || (of(site, "kin").len() == MEMBERS).then_some(()));
    let kin = of(site, "kin");
    let config = site.agent().config().display().to_string();
    let program = host::with_words(|words| words.contains("serve-private") && words.contains(&config));
    let is_monitor = |pid: &u32| host::leads_session(*pid) && kin.iter().any(|kin| host::descends(*kin, *pid));
    let monitor = program.into_iter().find(is_monitor).expect("its monitor");
    (kin, monitor)
}

fn kill_executor(site: &Site) {
    let executor = site.agent().executor();
    host::kill(executor, Signal::SIGKILL);
    dead(executor);
}

/// Kills the monitor, and sees that the job is lost when nobody is left, that its script is free then, and neither before.
fn bereave(site: &Site, id: &str, (kin, monitor): (Vec<u32>, u32)) {
    let caller = Caller::of(site);
    assert!(kin.iter().all(|pid| host::alive(*pid)));
    assert_eq!(caller.result(id)["status"], "running");
    host::kill(monitor, Signal::SIGKILL);
    is_lost(&caller, id, &kin);
}

/// Waits until the job is lost, and its script may run again.
fn is_lost(caller: &Caller<'_>, id: &str, kin: &[u32]) {
    let second = format!("{id}-again");
    let site = caller.site;
    std::fs::remove_file(site.agent().work("up")).unwrap();
    eventually("another job of the script", || {
        let answer = caller.submit("family", &second);
        assert!(answer.status == 202 || answer.json()["reason"] == "script-already-running", "{answer:?}");
        (answer.status == 202).then_some(())
    });
    assert!(kin.iter().all(|pid| !host::alive(*pid)), "{kin:?}");
    let lost = caller.ended(id);
    assert_eq!((&lost["status"], &lost["reason"]), (&json!("lost"), &json!("outcome-unknown")), "{lost}");
    let (kin, monitor) = family(site);
    host::kill(monitor, Signal::SIGKILL);
    assert_eq!(caller.ended(&second)["status"], "lost");
    assert!(kin.iter().all(|pid| !host::alive(*pid)), "{kin:?}");
    std::fs::remove_file(site.agent().work("up")).unwrap();
}

#[test]
fn nothing_of_a_run_outlives_a_monitor_that_is_killed_after_its_executor() {
    let site = site();
    Caller::of(&site).accepted("family", "first");
    let family_of_job = family(&site);
    kill_executor(&site);
    site.agent().line("exec-restart").is(&["ACTION=exec-restart", "SIGNAL=9"]);
    bereave(&site, "first", family_of_job);
    site.agent().line("exec-orphans");
    // Nobody has to ask for it.
    let run = Background::start(site.control_command(&["run", "--no-stream", "agent1", "family"]));
    let (kin, monitor) = family(&site);
    kill_executor(&site);
    host::kill(monitor, Signal::SIGKILL);
    kin.iter().copied().for_each(dead);
    run.end().exits(1);
}

#[test]
fn nothing_of_a_job_outlives_a_monitor_that_is_killed_after_its_agent_was_started_anew() {
    let mut site = site();
    for (id, killed) in [("stopped", false), ("killed", true)] {
        Caller::of(&site).accepted("family", id);
        let family = family(&site);
        if killed {
            kill_executor(&site);
            site.agent_mut().kill();
        } else {
            assert_eq!(site.agent_mut().stop(), Some(0));
        }
        site.start(0);
        bereave(&site, id, family);
    }
}

#[test]
fn an_agent_ends_what_is_left_where_it_was_killed_with_executor_and_monitor() {
    let mut site = site();
    for id in ["first", "second"] {
        Caller::of(&site).accepted("family", id);
        let (kin, monitor) = family(&site);
        let executor = site.agent().executor();
        site.agent_mut().kill();
        for pid in [executor, monitor] {
            host::kill(pid, Signal::SIGKILL);
        }
        [executor, monitor].into_iter().for_each(dead);
        // There is nobody to end them.
        assert_eq!(of(&site, "kin").len(), kin.len());
        site.start(0);
        is_lost(&Caller::of(&site), id, &kin);
        assert_eq!(of(&site, "kin").len(), 0);
    }
}

#[test]
fn who_was_left_behind_on_purpose_outlives_executor_agent_and_monitors() {
    let mut site = site();
    assert_eq!(site.result("leaves", &[])["stdout"], "left\n");
    let daemon = eventually("who was left", || of(&site, "daemon").first().copied());
    Caller::of(&site).accepted("family", "first");
    let (kin, monitor) = family(&site);
    let executor = site.agent().executor();
    site.agent_mut().kill();
    for pid in [executor, monitor] {
        host::kill(pid, Signal::SIGKILL);
    }
    site.start(0);
    kin.iter().copied().for_each(dead);
    assert_eq!(Caller::of(&site).ended("first")["status"], "lost");
    std::fs::write(site.agent().work("go"), "").unwrap();
    eventually("his child", || (!host::children(daemon).is_empty()).then_some(()));
    // Another one's end is no reason either.
    std::fs::remove_file(site.agent().work("up")).unwrap();
    Caller::of(&site).accepted("family", "second");
    let (kin, monitor) = family(&site);
    kill_executor(&site);
    host::kill(monitor, Signal::SIGKILL);
    kin.iter().copied().for_each(dead);
    assert!(host::alive(daemon));
    let all: Vec<u32> = host::children(daemon).into_iter().chain([daemon]).collect();
    for pid in all {
        host::kill(pid, Signal::SIGKILL);
    }
}
