//! Scripts whose monitor was killed: nothing of them goes on, and whoever another script has left behind does.

use std::fs::File;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::reluctant::Reluctant;
use crate::harness::{Site, eventually, host, tls};
use crate::jobs::{Caller, dead};

/// A family: in its own session and group, orphaned, and deaf to SIGTERM. Each is known by its last word.
const FAMILY: &str = "trap '' TERM
sh -c 'sleep 300; true' {work}/kin &
setsid sh -c 'sleep 300; true' {work}/kin &
(setsid sh -c \"trap '' HUP; sh -c 'sleep 300; true' {work}/kin & sleep 300; true\" {work}/kin &)
echo up > {work}/up
wait";

/// Ends by itself and leaves somebody.
const LEAVES: &str = "setsid sh -c 'sleep 300; true' {work}/daemon > /dev/null 2>&1 & echo left";

/// The processes whose last word is this file of the site's.
fn of(site: &Site, name: &str) -> Vec<u32> {
    let word = site.agent().work(name).display().to_string();
    host::with_words(|words| words.trim_end_matches('\0').ends_with(&word))
}

/// Notes where another run of it is not over, which holds that lock to its last process; and those have much to give back, which
/// comes before their locks.
const HEAVY: &str = "exec 9>> {work}/own
flock -n 9 || echo overlap >> {work}/overlaps
for each in 1 2 3; do
    perl -e '$x = \"x\" x (64 << 20); open(my $up, q(>>), $ARGV[0]); print $up qq(up\\n); close($up); sleep 300' {work}/up {work}/kin &
done
wait";

fn site(mode: Mode) -> Site {
    Site::builder()
        .executor(mode)
        .sh("family", FAMILY)
        .sh("leaves", LEAVES)
        .sh("heavy", HEAVY)
        .sh("plain", "echo ran")
        .start()
}

/// Waits until the whole family is there. It and its monitor.
fn family(site: &Site) -> (Vec<u32>, u32) {
    site.agent().worked("up");
    let kin = eventually("a family", || {
        // Each has somebody who sleeps; who is about to become that has its words, too.
        let kin: Vec<u32> = of(site, "kin").into_iter().filter(|pid| !host::children(*pid).is_empty()).collect();
        (kin.len() == 4).then_some(kin)
    });
    let monitor = monitor(site, &kin);
    (kin, monitor)
}

fn monitor(site: &Site, kin: &[u32]) -> u32 {
    eventually("its monitor", || {
        let children = host::children(site.agent().executor());
        // Of those who lead a session, only it has any of the family below.
        children.into_iter().find(|pid| host::leads_session(*pid) && kin.iter().any(|kin| host::descends(*kin, *pid)))
    })
}

/// Waits until the whole family is there, and kills its monitor.
fn bereave(site: &Site) {
    host::kill(family(site).1, Signal::SIGKILL);
}

fn is_gone(site: &Site) {
    eventually("the end of the family", || of(site, "kin").is_empty().then_some(()));
    std::fs::remove_file(site.agent().work("up")).unwrap();
}

#[test]
fn nothing_of_a_run_outlives_its_monitor() {
    for mode in Mode::ALL {
        let site = site(mode);
        for form in ["--no-stream", "--stream", "--keep-running"] {
            let run = Background::start(site.control_command(&["run", form, "agent1", "family"]));
            if form == "--keep-running" {
                site.agent().line("run-async");
            }
            bereave(&site);
            is_gone(&site);
            run.end().exits(1);
        }
    }
}

#[test]
fn a_script_whose_monitor_was_killed_does_not_run_again_beside_what_is_left_of_it() {
    let site = site(Mode::Private);
    let submit = |id: &str| {
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        http.post("/run", &json!({ "script": "family", "reqid": id, "async": true }).to_string())
    };
    for round in 0..5 {
        assert_eq!(submit(&format!("first{round}")).status, 202);
        bereave(&site);
        // For the next one to say.
        std::fs::remove_file(site.agent().work("up")).unwrap();
        // As soon as it may, and not before.
        let before = of(&site, "kin");
        eventually("another job of the script", || {
            let answer = submit(&format!("second{round}"));
            assert!(answer.status == 202 || answer.json()["reason"] == "script-already-running", "{answer:?}");
            (answer.status == 202).then_some(())
        });
        assert!(before.iter().all(|pid| !host::alive(*pid)), "{before:?}");
        bereave(&site);
        is_gone(&site);
    }
}

#[test]
fn a_job_is_lost_and_its_script_free_when_the_last_process_is_gone_and_not_before() {
    for mode in Mode::ALL {
        let site = site(mode);
        let caller = Caller::of(&site);
        for (place, next) in [(0, "family"), (3, "family"), (1, "plain")] {
            let (id, second) = (format!("first{place}"), format!("second{place}"));
            caller.accepted("family", &id);
            let (kin, monitor) = family(&site);
            let held = Reluctant::of(kin[place]);
            host::kill(monitor, Signal::SIGKILL);
            // Whatever the kernel does with the monitor itself, it has done.
            kin.iter().filter(|pid| **pid != kin[place]).chain([&monitor]).copied().for_each(dead);
            assert!(host::alive(kin[place]), "{mode:?}");
            let told = caller.result(&id);
            assert_eq!(told["status"], "running", "{mode:?}: {told}");
            for (script, id) in [("family", second.as_str()), (next, id.as_str())] {
                let answer = caller.submit(script, id);
                assert_eq!(answer.status, 409, "{mode:?}: {answer:?}");
            }
            // Nothing else waits for it.
            caller.accepted("plain", &format!("other{place}"));
            assert_eq!(caller.ended(&format!("other{place}"))["stdout"], "ran\n");
            assert_eq!(caller.result(&id)["status"], "running", "{mode:?}");
            drop(held);
            let lost = caller.ended(&id);
            assert_eq!((&lost["status"], host::alive(kin[place])), (&json!("lost"), false), "{mode:?}: {lost}");
            std::fs::remove_file(site.agent().work("up")).unwrap();
            caller.accepted("family", &second);
            bereave(&site);
            is_gone(&site);
            assert_eq!(caller.ended(&second)["status"], "lost");
        }
    }
}

/// The second run of each round begins as soon as it may, every other time when the first is told to be lost.
#[test]
fn no_run_of_a_script_meets_a_process_of_one_whose_monitor_was_killed() {
    for mode in Mode::ALL {
        let site = site(mode);
        let caller = Caller::of(&site);
        let [own, overlaps, up] = ["own", "overlaps", "up"].map(|name| site.agent().work(name));
        for round in 0..10 {
            let id = format!("r{round}");
            eventually("a run", || {
                let answer = caller.submit("heavy", &id);
                assert!(answer.status == 202 || answer.json()["reason"] == "script-already-running", "{answer:?}");
                (answer.status == 202).then_some(())
            });
            let is_up = || std::fs::read_to_string(&up).is_ok_and(|text| text.lines().count() == 3);
            eventually("its processes", || is_up().then_some(()));
            std::fs::remove_file(&up).unwrap();
            host::kill(monitor(&site, &of(&site, "kin")), Signal::SIGKILL);
            if round % 2 == 0 {
                assert_eq!(caller.ended(&id)["status"], "lost");
                let lock = File::open(&own).unwrap();
                assert!(lock.try_lock().is_ok(), "{mode:?}, round {round}: told to be lost, and there");
            }
        }
        assert!(
            !overlaps.exists(),
            "{mode:?}: {} overlaps",
            std::fs::read_to_string(&overlaps).unwrap().lines().count()
        );
    }
}

/// As long as a keeper waits for the runs of monitors that were killed with their service.
const ENDING: Duration = Duration::from_secs(5);

#[test]
fn a_keeper_lets_runs_end_whose_monitor_was_killed_with_the_service_before_there_is_another() {
    let site = site(Mode::Own);
    let caller = Caller::of(&site);
    caller.accepted("family", "first");
    let ((kin, monitor), service, keeper) = (family(&site), site.agent().executor(), site.agent().keeper());
    let held = Reluctant::of(kin[0]);
    let killed = Instant::now();
    // In this order, so that the service does nothing about it.
    host::kill(service, Signal::SIGSTOP);
    for pid in [monitor, service] {
        host::kill(pid, Signal::SIGKILL);
        dead(pid);
    }
    kin[1..].iter().copied().for_each(dead);
    let another = || {
        let mut children = host::children(keeper).into_iter();
        // Of one who has just ended nothing is to be seen.
        let is_service = |pid| !host::leads_session(pid) && host::number_within(pid).is_none() && host::alive(pid);
        children.find(|pid| is_service(*pid))
    };
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        assert!(another().is_none() || killed.elapsed() >= ENDING);
    }
    drop(held);
    eventually("another service", another);
    dead(kin[0]);
    assert_eq!(caller.ended("first")["status"], "lost");
    std::fs::remove_file(site.agent().work("up")).unwrap();
    caller.accepted("family", "second");
    bereave(&site);
    is_gone(&site);
}

/// Its job's locks are two of them.
#[test]
fn an_executor_has_no_more_descriptors_after_many_jobs() {
    for mode in Mode::ROOT {
        let site = site(mode);
        let caller = Caller::of(&site);
        let executor = site.agent().executor();
        let count = || std::fs::read_dir(format!("/proc/{executor}/fd")).unwrap().count();
        let alone = || eventually("no monitor", || host::children(executor).is_empty().then_some(()));
        caller.accepted("plain", "warm");
        caller.ended("warm");
        alone();
        let before = count();
        for number in 0..40 {
            let id = format!("r{number}");
            caller.accepted("plain", &id);
            assert_eq!(caller.ended(&id)["exit"], 0);
        }
        alone();
        eventually("as many descriptors as before", || (count() <= before).then_some(()));
    }
}

#[test]
fn who_was_left_behind_by_a_script_that_has_ended_is_left_alone() {
    let site = site(Mode::Private);
    assert_eq!(site.result("leaves", &[])["stdout"], "left\n");
    let daemon = eventually("who was left", || of(&site, "daemon").first().copied());
    eventually("its adoption", || (host::parent(daemon) == site.agent().executor()).then_some(()));
    let run = Background::start(site.control_command(&["run", "--no-stream", "agent1", "family"]));
    bereave(&site);
    is_gone(&site);
    run.end().exits(1);
    assert!(host::alive(daemon));
    // It counts as nobody's event, and nobody waits for it in vain.
    host::kill(daemon, Signal::SIGKILL);
    eventually("its end", || (!host::alive(daemon)).then_some(()));
    eventually("no zombie", || (host::zombies(site.agent().executor()) == 0).then_some(()));
}
