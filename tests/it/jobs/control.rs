//! Jobs from the dispatcher's command line.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{Caller, go, site, waiting};
use crate::harness::impostor::Impostor;
use crate::harness::process::Ran;
use crate::harness::{Site, eventually, host, pki};

fn record_path(site: &Site, reqid: &str) -> PathBuf {
    site.control.join(format!("var/lib/ctrl-exec/runs/{reqid}.json"))
}

fn record(site: &Site, reqid: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(record_path(site, reqid)).unwrap()).unwrap()
}

/// The request id in `Submitted async run  req:<id>`.
fn submitted(ran: &Ran) -> String {
    let line = ran.stdout.lines().next().unwrap();
    line.strip_prefix("Submitted async run  req:").unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

#[test]
fn a_run_is_submitted_asked_for_and_waited_for() {
    let site = site().agents(2).start();
    let ran = site.control(&["--username", "me", "run", "agent2", "agent1", "wait", "--async"]).exits(0);
    let id = submitted(&ran);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let mut hosts: Vec<&str> = lines[1..3].iter().map(|line| line.split("  [accepted  ").next().unwrap()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["==> agent1", "==> agent2"], "{lines:?}");
    assert!(lines[1].ends_with("ms]"), "{lines:?}");
    assert_eq!(lines[3], format!("Check progress with: ctrl-exec-dispatcher status {id}"));
    assert_eq!(ran.lines("dispatch")[0].get("MODE"), Some("async"));
    let keys = ["ACTION=run-async", &format!("REQID={id}"), "RTT=*", "SCRIPT=wait", "STATUS=accepted", "TARGET=*"];
    ran.lines("run-async")[0].is(&keys);
    let stored = record(&site, &id);
    let want = json!({"agent1": {"status": "accepted"}, "agent2": {"status": "accepted"}});
    assert_eq!((&stored["mode"], &stored["hosts"]), (&json!("async"), &want), "{stored}");
    assert_eq!((&stored["pending"], &stored["complete"]), (&json!(["agent1", "agent2"]), &json!(false)));
    assert_eq!(stored["submitter"], json!({"username": "me", "source_ip": "127.0.0.1"}));
    assert!(stored["created"].is_u64());
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(record_path(&site, &id)), 0o640);
    assert_eq!(mode(record_path(&site, &id).parent().unwrap().to_owned()), 0o750);

    let pending = site.control(&["status", &id]).exits(0);
    let want = format!("Request {id}  (script: wait)  [PENDING]\n==> agent1  [running]\n==> agent2  [running]\n");
    assert_eq!(pending.stdout, want);
    pending.lines("result")[0].is(&["ACTION=result", &format!("REQID={id}"), "RTT=*", "STATUS=running", "TARGET=*"]);
    let late = site.control(&["wait", &id, "--timeout", "0"]).exits(2);
    assert_eq!(late.stdout, want);
    go(&site);
    std::fs::write(site.agents[1].work("go"), "").unwrap();
    let done = site.control(&["wait", &id]).exits(1);
    let host = "[done  exit:3]\nbegun\nover\n    STDERR: bad\n\n";
    assert_eq!(done.stdout, format!("Request {id}  (script: wait)  [COMPLETE]\n==> agent1  {host}==> agent2  {host}"));
    let json = site.control(&["--json", "status", &id]).exits(0).json();
    assert_eq!((&json["ok"], &json["complete"], &json["pending"]), (&json!(1), &json!(true), &json!([])));
    assert_eq!((&json["hosts"]["agent1"]["exit"], &json["submitter"]["username"]), (&json!(3), &json!("me")));
    assert_eq!(site.control(&["result", &id]).exits(0).stdout, done.stdout);
    // The record holds the results; nobody has to be asked any more.
    let before = record_path(&site, &id).metadata().unwrap().modified().unwrap();
    assert!(site.control(&["status", &id]).exits(0).lines("result").is_empty());
    assert_eq!(record_path(&site, &id).metadata().unwrap().modified().unwrap(), before);
}

#[test]
fn a_busy_host_is_told_and_a_run_that_nobody_took_is_a_failure() {
    let site = site().start();
    site.control(&["run", "--async", "agent1", "wait"]).exits(0);
    let busy = site.control(&["run", "--async", "agent1", "wait"]).exits(1);
    assert!(busy.stdout.contains("\n==> agent1  [BUSY: script already running]\n"), "{busy:?}");
    assert_eq!(busy.lines("run-async")[0].get("STATUS"), Some("busy"));
    let id = submitted(&busy);
    assert_eq!(record(&site, &id)["hosts"]["agent1"], json!({"status": "busy", "error": "script already running"}));
    let want = format!("Request {id}  (script: wait)  [COMPLETE]\n==> agent1  [BUSY]\n    script already running\n");
    assert_eq!(site.control(&["wait", &id]).exits(1).stdout, want);
    let refused = site.control(&["--json", "run", "--async", "agent1", "nope"]).exits(1);
    assert_eq!(refused.result()["error"], "script not permitted");
    let id = refused.json()["reqid"].as_str().unwrap().to_owned();
    assert_eq!(record(&site, &id)["hosts"]["agent1"]["status"], "error");
    // Named twice, it takes one job, which is the one on record.
    let twice = site.control(&["--json", "run", "--async", "agent1", "agent1", "ok"]).exits(0);
    let id = twice.json()["reqid"].as_str().unwrap().to_owned();
    assert_eq!(site.control(&["wait", &id]).exits(0).stdout.lines().nth(1), Some("==> agent1  [done  exit:0]"));
    go(&site);
}

#[test]
fn requests_that_nobody_knows_are_told() {
    let site = Site::builder().agents(0).start();
    for verb in ["status", "wait", "result", "cancel"] {
        for id in ["0123456789abcdef", "../x", ""] {
            assert_eq!(site.control(&[verb, id]).exits(1).messages(), format!("No such request: {id}\n"), "{verb}");
            let json = site.control(&["--json", verb, id]).exits(1).json();
            assert_eq!(json, json!({"ok": 0, "error": "not found", "reqid": id}));
        }
    }
    site.control(&["wait"]).exits(64);
}

#[test]
fn an_explicit_port_is_remembered_and_a_stranger_is_never_asked() {
    let site = site().start();
    let port = site.agent().address().port();
    let mut stored: Value = serde_json::from_str(&std::fs::read_to_string(site.record("agent1")).unwrap()).unwrap();
    stored["port"] = 1.into();
    std::fs::write(site.record("agent1"), stored.to_string()).unwrap();
    let ran = site.control(&["run", "--async", &format!("agent1:{port}"), "ok"]).exits(0);
    let id = submitted(&ran);
    assert_eq!(site.control(&["wait", &id]).exits(0).stdout.lines().nth(1), Some("==> agent1  [done  exit:0]"));
    let ran = site.control(&["run", "--async", &format!("agent1:{port}"), "ok"]).exits(0);
    site.control(&["unpair", "agent1"]).exits(0);
    let text = site.control(&["status", &submitted(&ran)]).exits(0).stdout;
    assert!(text.ends_with("==> agent1  [accepted]\n    (fetch pending: unknown agent: agent1)\n"), "{text}");
}

#[test]
fn a_host_that_is_away_is_asked_again_and_one_that_has_forgotten_has_expired() {
    let mut site = site().start();
    let id = submitted(&site.control(&["run", "--async", "agent1", "ok"]).exits(0));
    Caller::of(&site).ended(&id);
    site.agent_mut().stop();
    let text = site.control(&["status", &id]).exits(0).stdout;
    assert!(text.contains("==> agent1  [accepted]\n    (fetch pending: host '127.0.0.1' did not respond"), "{text}");
    site.start(0);
    std::fs::remove_file(super::file(&site, &id, "json")).unwrap();
    let text = site.control(&["wait", &id]).exits(1).stdout;
    assert!(text.ends_with("[COMPLETE]\n==> agent1  [EXPIRED]\n"), "{text}");
}

#[test]
fn a_lost_job_is_told_as_lost() {
    let site = site().start();
    let id = submitted(&site.control(&["run", "--async", "agent1", "wait"]).exits(0));
    let (_, monitor) = waiting(&site);
    host::kill(monitor, Signal::SIGKILL);
    let text = site.control(&["wait", &id]).exits(1).stdout;
    assert!(text.contains("==> agent1  [LOST]\n    the job's end is unknown") && text.ends_with("\nbegun\n"), "{text}");
}

#[test]
fn a_run_is_cancelled_wherever_it_goes_on() {
    let site = site().agents(2).start();
    let id = submitted(&site.control(&["run", "--async", "agent1", "agent2", "wait"]).exits(0));
    std::fs::write(site.agents[1].work("go"), "").unwrap();
    eventually("the end of one", || {
        site.control(&["status", &id]).stdout.contains("==> agent2  [done  exit:3]").then_some(())
    });
    let ran = site.control(&["cancel", &id]).exits(0);
    assert!(ran.stdout.contains("[COMPLETE]\n==> agent1  [done  exit:126]\n    cancelled\nbegun\n"), "{ran:?}");
    let line = &ran.lines("cancel")[0];
    line.is(&["ACTION=cancel", &format!("REQID={id}"), "RTT=*", "STATUS=done", "TARGET=*"]);
    assert_eq!(ran.lines("cancel").len(), 1);
    site.control(&["cancel", &id]).exits(0);
}

#[test]
fn the_hook_judges_who_cancels() {
    let hook = "[ \"$ENVEXEC_ACTION\" = run ] || { env | grep ENVEXEC > {work}/seen; exit 3; }";
    let site = site().hook(hook).start();
    let id = submitted(&site.control(&["run", "--async", "agent1", "wait"]).exits(0));
    waiting(&site);
    let denied = site.control(&["cancel", &id]).exits(1);
    assert_eq!(denied.messages(), "Denied: insufficient privilege\n");
    let seen = std::fs::read_to_string(site.control.join("seen")).unwrap();
    for line in ["ENVEXEC_ACTION=cancel", &format!("ENVEXEC_REQID={id}"), "ENVEXEC_SCRIPT=wait", "ENVEXEC_HOSTS=agent1"]
    {
        assert!(seen.lines().any(|seen| seen == line), "{line}: {seen}");
    }
    assert!(site.control(&["status", &id]).exits(0).stdout.contains("[running]"));
    go(&site);
}

#[test]
fn a_run_that_keeps_running_outlives_its_caller_and_is_followed_again() {
    let site = site().start();
    let mut command = site.control_command(&["run", "--keep-running", "agent1", "wait"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut caller = command.spawn().unwrap();
    let mut said = BufReader::new(caller.stderr.take().unwrap()).lines().map(Result::unwrap);
    let said = said.find_map(|line| line.strip_prefix("req:").map(str::to_owned)).unwrap();
    let id = said.split(' ').next().unwrap().to_owned();
    assert!(said.ends_with(&format!("ctrl-exec-dispatcher result {id} --follow")), "{said}");
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "begun");
    let (script, _) = waiting(&site);
    site.agent().line("run-async");
    caller.kill().unwrap();
    caller.wait().unwrap();
    assert!(host::alive(script));
    let mut command = site.control_command(&["result", &id, "--follow"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut follower = command.spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "begun");
    go(&site);
    assert_eq!(lines.next().unwrap(), "over");
    assert!(lines.next().unwrap().starts_with("==> agent1  [FAIL  exit:3  "));
    assert_eq!(follower.wait().unwrap().code(), Some(1));
    assert!(site.control(&["status", &id]).exits(0).stdout.contains("[done  exit:3]\nbegun\nover\n"));
    assert!(site.control(&["result", &id, "--follow"]).exits(1).stdout.contains("[done  exit:3]\nbegun\nover\n"));
    let again = site.control(&["run", "--keep-running", "agent1", "ok"]).exits(0);
    assert!(again.stdout.contains("==> agent1  [OK  exit:0  "), "{again:?}");
}

#[test]
fn a_run_that_keeps_running_survives_its_agent() {
    let mut site = site().start();
    let mut command = site.control_command(&["run", "--keep-running", "agent1", "wait"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut caller = command.spawn().unwrap();
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "begun");
    let (script, _) = waiting(&site);
    site.agent_mut().kill();
    let rest: Vec<String> = lines.collect();
    assert_eq!(caller.wait().unwrap().code(), Some(1));
    let hint = rest.iter().find(|line| line.contains("HINT: the job may run all the same")).unwrap();
    let id = hint.split("status ").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    assert!(host::alive(script));
    site.start(0);
    assert!(site.control(&["status", &id]).exits(0).stdout.contains("==> agent1  [running]\n"));
    go(&site);
    assert!(site.control(&["wait", &id]).exits(1).stdout.contains("[done  exit:3]"));
}

/// An agent that answers in turn, as the original does.
fn original(site: &Site, answers: &[(&str, &str)]) -> Impostor {
    let credentials = pki::issue(&site.authority(), "old");
    let answers: Vec<String> = answers
        .iter()
        .map(|(status, body)| {
            let head = format!("HTTP/1.0 {status}\r\nContent-Type: application/json");
            format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
        .collect();
    let impostor = Impostor::in_turn(&site.authority(), &credentials, answers);
    site.register("old", impostor.address.port(), &credentials);
    impostor
}

const ACCEPTED: (&str, &str) = ("202 Accepted", r#"{"script":"x","status":"accepted","reqid":"r"}"#);

#[test]
fn an_agent_of_the_original_keeps_the_promise_that_the_run_goes_on() {
    let site = Site::builder().agents(0).prepare();
    let running =
        r#"{"status":"running","script":"x","reqid":"r","owner":"control-1","started":"2026-11-20T10:00:00Z"}"#;
    let done = running.replace("running", "done").replace('}', r#","exit":4,"stdout":"plain\n","stderr":""}"#);
    let impostor = original(&site, &[ACCEPTED, ("200 OK", running), ("200 OK", &done)]);
    let ran = site.control(&["run", "--keep-running", "old", "x"]).exits(1);
    assert!(ran.stdout.contains("==> old  [FAIL  exit:4  ") && ran.stdout.contains("\nplain\n"), "{ran:?}");
    assert!(impostor.heard().contains(r#""async":true"#), "it is a job, and no run that dies with its caller");
}

#[test]
fn an_agent_of_the_original_with_its_executor_refuses_jobs_and_cannot_cancel_them() {
    let site = Site::builder().agents(0).prepare();
    let text = "async runs are not yet supported with the executor (privilege separation); run synchronously";
    let body = format!(r#"{{"script":"x","exit":-1,"reqid":"r","error":"{text}"}}"#);
    let running = r#"{"status":"running","script":"x","reqid":"r"}"#;
    let refused = ("200 OK", body.as_str());
    let answers = [refused, refused, ACCEPTED, ("404 Not Found", r#"{"error":"not found"}"#), ("200 OK", running)];
    let _impostor = original(&site, &answers);
    let ran = site.control(&["run", "--async", "old", "x"]).exits(1);
    assert!(ran.stdout.contains(&format!("==> old  [ERROR: {text}]\n")), "{ran:?}");
    let ran = site.control(&["run", "--keep-running", "old", "x"]).exits(1);
    assert!(ran.stdout.contains(&format!("    ERROR: {text}\n")), "{ran:?}");
    let id = submitted(&site.control(&["run", "--async", "old", "x"]).exits(0));
    let ran = site.control(&["cancel", &id]).exits(1);
    assert_eq!(ran.messages(), "old: not cancelled: this agent cannot cancel jobs\n");
    assert!(ran.stdout.contains("==> old  [running]\n"), "{ran:?}");
}

#[test]
fn a_job_that_takes_long_to_end_is_never_said_to_go_on() {
    let site = Site::builder().agents(0).prepare();
    let running = r#"{"status":"running","script":"x","reqid":"r"}"#;
    let _agent = original(&site, &[ACCEPTED, ("202 Accepted", running), ("200 OK", running)]);
    let id = submitted(&site.control(&["run", "--async", "old", "x"]).exits(0));
    let ran = site.control(&["cancel", &id]).exits(2);
    assert!(ran.stdout.contains("[PENDING]\n==> old  [running]\n    (being ended: "), "{ran:?}");
    // Another's question knows nothing of it.
    assert!(!site.control(&["status", &id]).exits(0).stdout.contains("being ended"));
    let _agent = original(&site, &[("202 Accepted", running), ("200 OK", running)]);
    let json = site.control(&["--json", "cancel", &id]).exits(2).json();
    assert_eq!(json["hosts"]["old"]["ending"], true, "{json}");
}

/// Tidies up when it is asked to end, and takes its time until the test says that it is done.
const TIDIES_UP: &str = "trap 'echo asked; touch {work}/asked; asked=1' TERM; echo begun; echo $$ > {work}/pid
                         while [ ! -e {work}/go ]; do sleep 0.1; done; echo tidied ${asked:-unasked}";

#[test]
fn a_cancellation_that_takes_longer_than_its_agent_waits_is_told_as_under_way_and_comes_to_its_end() {
    let site = Site::builder().sh("wait", TIDIES_UP).section("kill_grace = 3600").start();
    let id = submitted(&site.control(&["run", "--async", "agent1", "wait"]).exits(0));
    let (script, _) = waiting(&site);
    let begun = Instant::now();
    // Longer than other commands may take: the agent waits as long as it is documented to.
    let output = site.control_command(&["cancel", &id]).stdin(Stdio::null()).output().unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(20), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let told = "(being ended: it is killed when its profile's kill_grace has passed)";
    assert!(said.contains(&format!("[PENDING]\n==> agent1  [running]\n    {told}\n")), "{said}");
    site.agent().line("cancel").is(&[
        "ACTION=cancel",
        "DISPATCHER=control-1",
        "PEER=127.0.0.1",
        &format!("REQID={id}"),
        "STATUS=running",
    ]);
    assert!(site.agent().work("asked").exists() && host::alive(script), "it was asked, and has its grace");
    go(&site);
    let said = site.control(&["wait", &id]).exits(1).stdout;
    assert!(said.contains("==> agent1  [done  exit:126]\n    cancelled\nbegun\nasked\ntidied 1\n"), "{said}");
    site.control(&["cancel", &id]).exits(0);
}

#[test]
fn records_of_the_original_s_dispatcher_are_read_and_brought_to_their_end() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("ok", "00aa");
    caller.ended("00aa");
    std::fs::create_dir_all(record_path(&site, "x").parent().unwrap()).unwrap();
    let detached = r#"{"created":1763800000,"complete":false,"mode":"async","pending":["agent1","away"],"script":"ok",
        "reqid":"00aa","hosts":{"agent1":{"status":"running","fetch_error":"read timeout"},"away":{"status":"accepted"},
        "db":{"status":"done","exit":0,"stdout":"caf\u00e9\n","stderr":""},"web":{"status":"busy","error":"script already running"}}}"#;
    let waited = r#"{"hosts":["web"],"mode":"sync","complete":true,"completed":1763800000,"reqid":"00bb","script":"x",
        "results":[{"host":"web","exit":2,"rtt":"31ms","reqid":"00bb","stdout":"hi\n","stderr":""}]}"#;
    std::fs::write(record_path(&site, "00aa"), detached).unwrap();
    std::fs::write(record_path(&site, "00bb"), waited).unwrap();
    std::fs::write(record_path(&site, "00cc"), "{\"reqid\":").unwrap();
    let text = site.control(&["status", "00aa"]).exits(0).stdout;
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("==> ") || line.starts_with("    (")).collect();
    let want = [
        "==> agent1  [done  exit:0]",
        "==> away  [accepted]",
        "    (fetch pending: unknown agent: away)",
        "==> db  [done  exit:0]",
        "==> web  [BUSY]",
    ];
    assert_eq!(lines, want, "{text}");
    assert!(text.contains("\ncafé\n"), "{text}");
    let head = "Request 00bb  (script: x)  [COMPLETE]\n==> web  [FAIL  exit:2  31ms  req:00bb]\nhi\n";
    assert_eq!(site.control(&["wait", "00bb"]).exits(1).stdout, head);
    let broken = site.control(&["status", "00cc"]).exits(1);
    assert!(broken.messages().contains("00cc.json is not a valid record"), "{broken:?}");
}

#[test]
fn an_ordinary_run_is_on_record_too() {
    let site = site().start();
    let ran = site.control(&["--json", "--username", "me", "run", "agent1", "ok"]).exits(0);
    let id = ran.result()["reqid"].as_str().unwrap().to_owned();
    let stored = record(&site, &id);
    assert_eq!(
        (&stored["mode"], &stored["hosts"], &stored["complete"]),
        (&json!("sync"), &json!(["agent1"]), &json!(true))
    );
    assert_eq!((&stored["results"][0], &stored["submitter"]["username"]), (&ran.result(), &json!("me")));
    let text = site.control(&["status", &id]).exits(0).stdout;
    let head = format!("Request {id}  (script: ok)  [COMPLETE]\n==> agent1");
    assert!(text.starts_with(&head) && text.contains("[OK  exit:0  "), "{text}");
    site.control(&["wait", &id]).exits(0);
}

#[test]
fn a_run_that_cannot_be_recorded_is_run_all_the_same() {
    let site = site().start();
    std::fs::create_dir_all(site.control.join("var/lib/ctrl-exec")).unwrap();
    std::fs::write(site.control.join("var/lib/ctrl-exec/runs"), "in the way").unwrap();
    for words in [&["run", "agent1", "ok"][..], &["run", "--async", "agent1", "ok"]] {
        let ran = site.control(words).exits(0);
        assert_eq!(ran.lines("run-store-fail")[0].keys(), ["ACTION", "ERROR", "REQID"], "{ran:?}");
    }
}

#[test]
fn ways_to_wait_exclude_each_other() {
    let site = Site::builder().prepare();
    for words in [["--async", "--stream"], ["--async", "--keep-running"], ["--keep-running", "--json"]] {
        site.control(&["run", words[0], words[1], "a", "b"]).exits(64);
    }
}
