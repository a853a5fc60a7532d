//! Ending a job from afar.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{Caller, dead, site, waiting};
use crate::harness::host;

/// A script with a child that is deaf to a polite request.
const STUBBORN: &str = "(trap '' TERM; exec sleep 300) & echo $! > {work}/child; echo out; echo $$ > {work}/pid
                        trap '' TERM; while :; do sleep 1; done";

#[test]
fn a_job_is_cancelled_with_everything_it_has_started() {
    let site = site().sh("stubborn", STUBBORN).start();
    let caller = Caller::of(&site);
    caller.accepted("stubborn", "r1");
    let (script, monitor) = waiting(&site);
    let child = site.agent().worked_pid("child");
    let answer = caller.post("/cancel/r1", &json!({}));
    let json = answer.json();
    assert_eq!((answer.status, &json["status"], &json["exit"]), (200, &json!("done"), &json!(126)), "{json}");
    assert_eq!((&json["reason"], json.get("stdout")), (&json!("cancelled"), None));
    [script, monitor, child].into_iter().for_each(dead);
    assert_eq!(caller.result("r1")["stdout"], "out\n");
    let fields = ["ACTION=cancel", "DISPATCHER=control-1", "PEER=127.0.0.1", "REQID=r1", "STATUS=done"];
    site.agent().line("cancel").is(&fields);
    // Cancelled twice is cancelled.
    assert_eq!(caller.post("/cancel/r1", &json!({})).json(), json);
}

#[test]
fn a_job_is_cancelled_after_a_restart_of_agent_and_executor() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    let (script, _) = waiting(&site);
    let executor = site.agent().executor();
    host::kill(executor, Signal::SIGKILL);
    site.agent_mut().kill();
    site.start(0);
    let caller = Caller::of(&site);
    let json = caller.post("/cancel/r1", &json!({})).json();
    assert_eq!((&json["status"], &json["reason"]), (&json!("done"), &json!("cancelled")), "{json}");
    dead(script);
}

#[test]
fn an_unknown_job_cannot_be_cancelled() {
    let site = site().start();
    let caller = Caller::of(&site);
    let answer = caller.post("/cancel/nope", &json!({}));
    assert_eq!((answer.status, answer.json()), (404, json!({"status": "unknown", "reqid": "nope"})));
    site.agent().line("cancel-miss").is(&[
        "ACTION=cancel-miss",
        "DISPATCHER=control-1",
        "PEER=127.0.0.1",
        "REQID=nope",
    ]);
    assert_eq!(caller.get("/cancel/nope").status, 404);
}
