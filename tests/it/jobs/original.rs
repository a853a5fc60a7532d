//! Records that the original has left behind.

use std::fs::File;

use serde_json::json;

use super::{Caller, files, go, runs, site};
use crate::harness::{Site, host};

/// Puts records in place as the original wrote them, and starts the agent.
fn with_records(records: &[(&str, &str)]) -> Site {
    let mut site = site().prepare();
    let dir = runs(&site).join("control-1");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(runs(&site).join(".locks")).unwrap();
    for (name, text) in records {
        std::fs::write(dir.join(name), text).unwrap();
        host::give_to_agent(&dir.join(name));
    }
    for place in [runs(&site), dir, runs(&site).join(".locks")] {
        host::give_to_agent(&place);
    }
    site.start(0);
    site
}

const DONE: &str = r#"{"finished":"2026-11-20T10:00:01Z","stdout":"caf\u00e9\n","reqid":"0123456789abcdef","exit":0,
    "stderr":"","status":"done","owner":"control-1","script":"ok","started":"2026-11-20T10:00:00Z"}"#;
const RUNNING: &str =
    r#"{"reqid":"aa","status":"running","script":"SCRIPT","owner":"control-1","started":"2026-11-20T10:00:00Z"}"#;

#[test]
fn a_result_of_the_original_is_answered_as_it_is() {
    let site = with_records(&[("0123456789abcdef.json", DONE)]);
    let caller = Caller::of(&site);
    let want: serde_json::Value = serde_json::from_str(DONE).unwrap();
    assert_eq!(caller.result("0123456789abcdef"), want);
    let piece = caller.result("0123456789abcdef?from=3");
    assert_eq!((&piece["stdout"], &piece["next"], &piece["more"]), (&json!("é\n"), &json!(6), &json!(false)));
    let cancelled = caller.post("/cancel/0123456789abcdef", &json!({}));
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("done")));
}

#[test]
fn a_job_of_the_original_runs_while_its_lock_is_held_and_is_lost_afterwards() {
    let site = with_records(&[("aa.json", &RUNNING.replace("SCRIPT", "ok"))]);
    let caller = Caller::of(&site);
    let lock = File::create(runs(&site).join(".locks/ok.lock")).unwrap();
    std::fs::set_permissions(runs(&site).join(".locks/ok.lock"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    lock.lock().unwrap();
    assert_eq!(caller.result("aa")["status"], "running");
    assert_eq!(caller.submit("ok", "bb").status, 409);
    let refused = caller.post("/cancel/aa", &json!({}));
    assert_eq!((refused.status, &refused.json()["status"]), (409, &json!("running")));
    drop(lock);
    // Whoever another test forks at this moment has it, too, until it is its program.
    let lost = caller.ended("aa");
    assert_eq!((&lost["status"], &lost["exit"], &lost["stdout"]), (&json!("lost"), &json!(-1), &json!("")), "{lost}");
}

#[test]
fn a_job_of_ours_is_not_taken_for_the_life_of_one_of_the_original() {
    let site = with_records(&[("aa.json", &RUNNING.replace("SCRIPT", "wait"))]);
    let caller = Caller::of(&site);
    caller.accepted("wait", "bb");
    assert_eq!(caller.result("aa")["status"], "lost");
    go(&site);
    assert_eq!(caller.ended("bb")["status"], "done");
    assert_eq!(files(&site), ["aa.json", "aa.lost", "bb.json", "bb.stderr", "bb.stdout"]);
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_and_not_an_unknown_job() {
    let site = with_records(&[("aa.json", "{\"reqid\":")]);
    let answer = Caller::of(&site).get("/result/aa");
    assert_eq!((answer.status, &answer.json()["error"]), (500, &json!("the job's record cannot be read")));
    site.agent().line("async-store-fail");
}
