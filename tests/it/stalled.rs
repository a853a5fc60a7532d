//! A script's process that does not get to its program, since a file system does not answer: it is ended in time, whatever
//! the executor, and what has waited for it goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::lease::Lease;
use crate::harness::{Site, host};
use crate::jobs::{Caller, dead};

fn site(mode: Mode, profile: &str) -> Site {
    let site = Site::builder().executor(mode).sh("held", "echo ran").sh("ok", "echo $$ $PPID");
    site.section(&format!("kill_grace = 0\n{profile}")).start()
}

fn lease(site: &Site) -> Lease {
    Lease::on(&site.agent().root.join("scripts/held"))
}

/// The processes that come from the executor now, monitors and all of theirs.
fn below(site: &Site) -> Vec<u32> {
    let executor = site.agent().executor();
    host::all().into_iter().filter(|pid| host::descends(*pid, executor)).collect()
}

#[track_caller]
fn has_run_out(result: &Value) {
    assert_eq!(result["exit"], 127, "{result}");
    assert_eq!(result["reason"], "could not start: exec: timed out", "{result}");
    assert_eq!(result["stdout"], "", "{result}");
}

#[test]
fn a_script_that_cannot_be_opened_is_given_up_at_its_time_limit() {
    for mode in Mode::ALL {
        let site = site(mode, "timeout = 1");
        let mut lease = lease(&site);
        let run = Background::start(site.control_command(&["--json", "run", "agent1", "held"]));
        lease.asked();
        let stuck = below(&site);
        assert!(stuck.len() >= 2, "{mode:?}: a monitor and the script's process: {stuck:?}");
        // Others are not held up by it.
        assert_eq!(site.result("ok", &[])["exit"], 0, "{mode:?}");
        has_run_out(&run.end().result());
        assert!(lease.is_held(), "{mode:?}: it was given up when the file was there");
        let line = site.agent().line_where("exec", |line| line.get("SCRIPT") == Some("held"));
        assert_eq!((line.get("EXIT"), line.get("OUTCOME")), (Some("127"), Some("not-started")), "{mode:?} {line:?}");
        // Nobody is left, not even the monitor whose memory the process had when it was killed.
        stuck.into_iter().for_each(dead);
        lease.give_back();
        let result = site.result("held", &[]);
        assert_eq!((&result["exit"], &result["stdout"]), (&json!(0), &json!("ran\n")), "{mode:?} {result}");
    }
}

#[test]
fn without_a_time_limit_it_is_given_up_after_half_a_minute() {
    let text = std::fs::read_to_string("/proc/sys/fs/lease-break-time").unwrap();
    assert!(text.trim().parse::<u32>().unwrap() >= 40, "the kernel takes leases away before that: {text}");
    // All at once, since all of it is waiting.
    std::thread::scope(|scope| {
        for mode in Mode::ALL {
            scope.spawn(move || {
                let site = site(mode, "");
                let mut lease = lease(&site);
                let before = Instant::now();
                let run = Background::start(site.control_command(&["--json", "run", "agent1", "held"]));
                lease.asked();
                has_run_out(&run.end().result());
                assert!(lease.is_held(), "{mode:?}: it was given up when the file was there");
                assert!(before.elapsed() >= Duration::from_secs(29), "{mode:?}: {:?}", before.elapsed());
            });
        }
    });
}

#[test]
fn a_job_that_cannot_be_opened_ends_as_one_that_did_not_start() {
    for mode in Mode::ALL {
        let site = site(mode, "timeout = 1");
        let mut lease = lease(&site);
        let caller = Caller::of(&site);
        let answer = caller.submit("held", "r1");
        lease.asked();
        assert_eq!(answer.status, 202, "{answer:?}");
        let ended = caller.ended("r1");
        assert_eq!((&ended["status"], &ended["exit"]), (&json!("done"), &json!(127)), "{mode:?} {ended}");
        assert_eq!(ended["reason"], "could not start: exec: timed out", "{mode:?}");
        assert!(lease.is_held(), "{mode:?}: it was given up when the file was there");
        lease.give_back();
        caller.accepted("held", "r2");
        assert_eq!(caller.ended("r2")["stdout"], "ran\n");
    }
}
