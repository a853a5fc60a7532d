//! What is kept of jobs, and for how long. File times are set, not waited for.

use std::fs::File;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Caller, file, files, go, runs, site, waiting};
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host, pki};

/// Makes a job's record so many hours old.
fn age(site: &Site, id: &str, hours: u64) {
    let record = File::options().write(true).open(file(site, id, "json")).unwrap();
    record.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
}

fn gone(site: &Site, id: &str) {
    let prefix = format!("{id}.");
    eventually(&format!("the end of all files of {id}"), || {
        files(site).iter().all(|name| !name.starts_with(&prefix)).then_some(())
    });
}

#[test]
fn results_are_forgotten_after_a_day_and_running_jobs_never() {
    let mut site = site().start();
    let caller = Caller::of(&site);
    for id in ["old", "young"] {
        caller.accepted("ok", id);
        caller.ended(id);
    }
    caller.accepted("wait", "run");
    waiting(&site);
    age(&site, "old", 25);
    age(&site, "young", 23);
    age(&site, "run", 1000);
    caller.accepted("ok", "next");
    gone(&site, "old");
    assert_eq!(caller.get("/result/old").status, 404);
    assert_eq!(caller.result("young")["status"], "done");
    assert_eq!(caller.result("run")["status"], "running");
    // At a start as at a submission; and a job's day begins with its end.
    caller.ended("next");
    site.agent_mut().stop();
    age(&site, "young", 25);
    site.start(0);
    gone(&site, "young");
    go(&site);
    let caller = Caller::of(&site);
    assert_eq!(caller.ended("run")["exit"], 3);
    caller.accepted("ok", "last");
    caller.ended("last");
    assert_eq!(caller.result("run")["status"], "done");
}

#[test]
fn the_oldest_results_go_first_when_there_are_too_many_bytes() {
    let site = site().sh("big", "head -c 400000 /dev/zero").agent("async_max_bytes = 3MiB\nmax_output = 1KiB").start();
    let caller = Caller::of(&site);
    for (place, id) in ["a", "b", "c", "d", "e", "f", "g"].into_iter().enumerate() {
        caller.accepted("big", id);
        caller.ended(id);
        age(&site, id, 20 - u64::try_from(place).unwrap());
    }
    caller.accepted("wait", "run");
    waiting(&site);
    assert_eq!(caller.result("a")["status"], "done");
    caller.accepted("big", "h");
    caller.ended("h");
    // The end of a job is no submission.
    caller.accepted("ok", "i");
    caller.ended("i");
    gone(&site, "a");
    for id in ["b", "c", "d", "e", "f", "g", "h", "i", "run"] {
        assert_eq!(caller.get(&format!("/result/{id}")).status, 200, "{id}");
    }
    go(&site);
    caller.ended("run");
}

/// The same agent, asked by another dispatcher that it trusts from now on.
fn another(site: &Site) -> Caller<'_> {
    let credentials = pki::issue(&site.authority(), "control-2");
    let trust = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), format!("{trust}{} control-2\n", credentials.serial())).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    Caller { site, credentials }
}

/// Waits until everything that ended before has been through a whole sweep: one that began after an earlier one was under way.
fn swept(caller: &Caller<'_>) {
    for id in ["sweep1", "sweep2"] {
        caller.accepted("ok", id);
        caller.ended(id);
        age(caller.site, id, 25);
        caller.accepted("ok", &format!("{id}-next"));
        caller.ended(&format!("{id}-next"));
        gone(caller.site, id);
    }
}

#[test]
fn what_is_printed_counts_once_and_costs_nobody_else_a_result() {
    for mode in Mode::ALL {
        let text = "head -c 550000 /dev/zero | tr '\\0' \"$1\"";
        let site = site().executor(mode).agent("async_max_bytes = 1MiB").sh("big", text).start();
        let (caller, other) = (Caller::of(&site), another(&site));
        other.accepted("ok", "precious");
        other.ended("precious");
        let is_kept =
            |who: &Caller<'_>, id: &str| assert_eq!(who.get(&format!("/result/{id}")).status, 200, "{mode:?}: {id}");
        // As text and as bytes that take six times the room in a record.
        for (id, letter) in [("big1", "x"), ("big2", "\\001")] {
            let body = json!({ "script": "big", "args": [letter], "reqid": id, "async": true });
            assert_eq!(caller.post("/run", &body).status, 202);
            assert_eq!(caller.ended(id)["exit"], 0);
            if id == "big1" {
                swept(&caller);
                is_kept(&caller, "big1");
                is_kept(&other, "precious");
            }
        }
        // Now there is too much: of what the one has printed who has printed it.
        swept(&caller);
        assert_eq!(caller.get("/result/big1").status, 404);
        is_kept(&caller, "big2");
        is_kept(&other, "precious");
    }
}

#[test]
fn a_result_that_is_larger_than_the_limit_keeps_its_record() {
    // Its output alone is not.
    let site = site().sh("big", "head -c 1048576 /dev/zero").agent("async_max_bytes = 1MiB\nmax_output = 1KiB").start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "run");
    waiting(&site);
    caller.accepted("big", "r1");
    caller.ended("r1");
    assert_eq!(caller.submit("wait", "no").status, 409);
    eventually("the end of the output", || (!file(&site, "r1", "stdout").exists()).then_some(()));
    assert_eq!((&caller.result("r1")["truncated"], &caller.result("r1")["exit"]), (&true.into(), &0.into()));
    go(&site);
    caller.ended("run");
}

#[test]
fn unfinished_writes_and_records_of_before_owners_are_swept() {
    let mut site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("ok", "r1");
    caller.ended("r1");
    site.agent_mut().stop();
    let old = |path: &std::path::Path| {
        std::fs::write(path, "{}").unwrap();
        host::give_to_agent(path);
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(25)).unwrap();
    };
    let (unfinished, flat) = (file(&site, "r1", "json").with_file_name(".tmp-0"), runs(&site).join("flat.json"));
    old(&unfinished);
    old(&flat);
    site.start(0);
    eventually("the sweep", || (!unfinished.exists() && !flat.exists()).then_some(()));
    assert_eq!(Caller::of(&site).result("r1")["status"], "done");
}
