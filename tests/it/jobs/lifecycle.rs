//! From the submission to the result.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Caller, dead, file, files, go, site, waiting};
use crate::harness::{eventually, pki};

#[test]
fn a_job_is_accepted_runs_and_leaves_its_result() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let running = caller.result("r1");
    let keys: Vec<&str> = running.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["reqid", "status", "script", "owner", "started"]);
    assert_eq!((&running["status"], &running["owner"]), (&json!("running"), &json!("control-1")));
    let (script, monitor) = waiting(&site);
    go(&site);
    let done = caller.ended("r1");
    for (key, want) in [
        ("reqid", json!("r1")),
        ("status", json!("done")),
        ("script", json!("wait")),
        ("started", running["started"].clone()),
        ("exit", json!(3)),
        ("stdout", json!("begun\nover\n")),
        ("stderr", json!("bad\n")),
    ] {
        assert_eq!(done[key], want, "{key}: {done}");
    }
    assert!(done["finished"].as_str().unwrap() >= done["started"].as_str().unwrap(), "{done}");
    assert_eq!(done.as_object().unwrap().len(), 9, "{done}");
    // Reading takes nothing away, and the file is what was answered.
    assert_eq!(caller.result("r1"), done);
    let text = std::fs::read_to_string(file(&site, "r1", "json")).unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), done);
    let mode = |suffix| std::fs::metadata(file(&site, "r1", suffix)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("json"), mode("stdout"), mode("stderr")), (0o640, 0o640, 0o640));
    [script, monitor].into_iter().for_each(dead);
    assert_eq!(files(&site), ["r1.json", "r1.stderr", "r1.stdout"]);
    let fields = ["DISPATCHER=control-1", "PEER=127.0.0.1", "REQID=r1"];
    let agent = site.agent();
    agent.line("run-async").is(&[&["ACTION=run-async"], &fields[..], &["SCRIPT=wait"]].concat());
    agent.line("result").is(&[&["ACTION=result"], &fields[..], &["STATUS=running"]].concat());
    agent.line_where("result", |line| line.get("STATUS") == Some("done"));
    assert!(agent.lines("run").is_empty());
}

#[test]
fn a_job_ends_with_the_site_of_its_test() {
    let mut site = site().start();
    Caller::of(&site).accepted("wait", "r1");
    let (script, monitor) = waiting(&site);
    site.agent_mut().kill();
    drop(site);
    [script, monitor].into_iter().for_each(dead);
}

#[test]
fn a_job_reads_the_same_context_as_a_run() {
    let site = site().start();
    let caller = Caller::of(&site);
    let long = "x".repeat(300_000);
    let body = json!({"script": "ok", "reqid": "r1", "async": 1, "args": ["a", 2], "username": long, "token": "t"});
    assert_eq!(caller.post("/run", &body).json()["error"], "username is longer than 4096 bytes");
    let body = json!({"script": "ok", "reqid": "r1", "async": 1, "args": ["a", 2, "x".repeat(100_000)], "token": "t"});
    assert_eq!(caller.post("/run", &body).status, 202);
    let done = caller.ended("r1");
    let context: serde_json::Value = serde_json::from_str(done["stdout"].as_str().unwrap()).unwrap();
    assert_eq!((&context["args"][1], &context["token"], &context["reqid"]), (&json!("2"), &json!("t"), &json!("r1")));
    assert_eq!((&context["dispatcher"], &context["peer_ip"]), (&json!("control-1"), &json!("127.0.0.1")));
    assert_eq!(context["args"][2].as_str().unwrap().len(), 100_000);
}

#[test]
fn a_script_has_one_job_at_a_time_and_the_next_may_follow_at_once() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let busy = caller.submit("wait", "r2");
    assert_eq!(busy.status, 409);
    let want = json!({
        "script": "wait", "status": "busy", "reqid": "r2", "error": "script already running",
        "reason": "script-already-running",
    });
    assert_eq!(busy.json(), want);
    site.agent().line("run-async-busy").is(&["ACTION=run-async-busy", "PEER=127.0.0.1", "REQID=r2", "SCRIPT=wait"]);
    assert_eq!(caller.get("/result/r2").status, 404);
    // Another script is not concerned, nor is a run that somebody waits for.
    caller.accepted("ok", "r3");
    go(&site);
    assert_eq!(site.result("wait", &[])["exit"], 3);
    caller.ended("r1");
    caller.ended("r3");
    for number in 0..20 {
        caller.accepted("ok", &format!("n{number}"));
        caller.ended(&format!("n{number}"));
    }
}

#[test]
fn a_request_id_is_used_again_only_when_its_job_has_ended() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let busy = caller.submit("ok", "r1");
    assert_eq!((busy.status, &busy.json()["status"]), (409, &json!("busy")));
    assert_eq!(busy.json()["error"], "a job of this request id is running");
    assert_eq!(caller.result("r1")["script"], "wait");
    go(&site);
    caller.ended("r1");
    caller.accepted("ok", "r1");
    assert_eq!(caller.ended("r1")["script"], "ok");
    assert!(!site.agent().work("ran").metadata().unwrap().is_dir());
}

#[test]
fn only_the_owner_finds_a_job() {
    let mut site = site().prepare();
    let other = pki::issue(&site.authority(), "control-2");
    let trust = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), format!("{trust}{} control-2\n", other.serial())).unwrap();
    site.start(0);
    let (caller, other) = (Caller::of(&site), Caller { site: &site, credentials: other });
    caller.accepted("wait", "r1");
    for path in ["/result/r1", "/result/r1?from=0", "/result/nope"] {
        let answer = other.get(path);
        let id = if path.contains("nope") { "nope" } else { "r1" };
        assert_eq!((answer.status, answer.json()), (404, json!({"status": "unknown", "reqid": id})), "{path}");
    }
    assert_eq!(other.post("/cancel/r1", &json!({})).status, 404);
    assert_eq!(caller.result("r1")["status"], "running");
    let agent = site.agent();
    agent.line("result-miss").is(&["ACTION=result-miss", "DISPATCHER=control-2", "PEER=127.0.0.1", "REQID=r1"]);
    agent.line("cancel-miss");
    // The same id is another job to another dispatcher.
    other.accepted("ok", "r1");
    assert_eq!(other.ended("r1")["owner"], "control-2");
    assert_eq!(caller.result("r1")["status"], "running");
    // A record that was moved there by hand belongs to whom it says.
    let text = std::fs::read_to_string(file(&site, "r1", "json")).unwrap();
    let moved = file(&site, "r1", "json").parent().unwrap().with_file_name("control-2").join("m.json");
    std::fs::write(moved, text.replace("running", "done")).unwrap();
    assert_eq!(other.get("/result/m").status, 404);
    let fields = ["ACTION=result-deny", "DISPATCHER=control-2", "PEER=127.0.0.1", "REASON=not-owner", "REQID=m"];
    agent.line("result-deny").is(&fields);
    go(&site);
    caller.ended("r1");
}

#[test]
fn a_stranger_learns_of_no_job() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("ok", "r1");
    caller.ended("r1");
    let stranger = Caller { site: &site, credentials: pki::issue(&site.authority(), "stranger") };
    for id in ["r1", "nope"] {
        let answer = stranger.get(&format!("/result/{id}"));
        assert_eq!((answer.status, answer.json()), (403, json!({"error": "serial mismatch", "status": "forbidden"})));
        site.agent().line_where("serial-reject", |line| line.get("REQID") == Some(id));
    }
    assert_eq!(stranger.post("/cancel/r1", &json!({})).status, 403);
    let body = json!({"script": "ok", "reqid": "r2", "async": true});
    assert_eq!(stranger.post("/run", &body).status, 403);
    assert_eq!(caller.get("/result/r2").status, 404);
}

#[test]
fn what_may_not_run_is_no_job() {
    let site = site().allow("outside = /bin/true").agent("script_dirs = {scripts}").start();
    let caller = Caller::of(&site);
    for script in ["nope", "outside"] {
        let answer = caller.submit(script, "r1");
        let json = answer.json();
        assert_eq!((answer.status, &json["exit"], &json["error"]), (200, &json!(-1), &json!("script not permitted")));
    }
    for id in ["", "a/b", "../x", "a b"] {
        let json = caller.submit("ok", id).json();
        assert_eq!((&json["exit"], &json["error"]), (&json!(-1), &json!("async run requires a valid reqid")), "{id}");
    }
    assert_eq!(files(&site), [""; 0]);
    assert!(!site.agent().work("ran").exists());
    for path in ["/result/", "/result/a/b", "/result/..%2fx", "/cancel/"] {
        assert_eq!(caller.get(path).status, 404, "{path}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_a_result() {
    let site = site().script("broken", "#!/nonexistent/interpreter\n").start();
    let caller = Caller::of(&site);
    caller.accepted("broken", "r1");
    let done = caller.ended("r1");
    assert_eq!((&done["status"], &done["exit"]), (&json!("done"), &json!(127)), "{done}");
    assert!(done["reason"].as_str().unwrap().starts_with("could not start: exec"), "{done}");
}

#[test]
fn a_time_limit_ends_a_job() {
    let site = site().section("timeout = 1").start();
    let caller = Caller::of(&site);
    // On a busy machine it may not have begun by then.
    eventually("one that had begun", || {
        caller.accepted("wait", "r1");
        let done = caller.ended("r1");
        assert_eq!((&done["exit"], &done["reason"]), (&json!(126), &json!("time limit of 1000 ms passed")), "{done}");
        (done["stdout"] == "begun\n").then_some(())
    });
}

#[test]
fn a_store_that_cannot_be_written_runs_nothing() {
    let site = site().agent("async_runs_dir = /proc/none").start();
    let json = Caller::of(&site).submit("ok", "r1").json();
    assert_eq!((&json["exit"], &json["error"]), (&json!(-1), &json!("could not start async job")), "{json}");
    assert_eq!(site.agent().line("async-store-fail").keys(), ["ACTION", "ERROR", "REQID"]);
    assert!(!site.agent().work("ran").exists());
}
