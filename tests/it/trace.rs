//! `traceparent`: a run is found again in its caller's trace, and nothing but a trace gets through.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::http::{Answer, Http};
use crate::harness::late::READS_LATE;
use crate::harness::tls::Tls;
use crate::harness::{Site, audit, eventually, host, pki, tls};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SCRIPT: &str = "echo \"${TRACEPARENT-none}\"";
const HOOK: &str = "cat > {work}/json; echo \"${ENVEXEC_TRACEPARENT-unset}\" > {work}/env";

fn site() -> Site {
    Site::builder().sh("say", SCRIPT).agent_hook(HOOK).start()
}

fn open(site: &Site) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher())
}

/// A request with these header lines.
fn ask(http: &mut Http<Tls>, line: &str, headers: &str, body: &str) -> Answer {
    http.send(format!("{line} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()));
    http.answer().unwrap()
}

#[test]
fn a_trace_reaches_hook_script_and_log() {
    let site = site();
    let (agent, header) = (site.agent(), format!("TraceParent: {TRACE}\r\n"));
    let mut http = open(&site);
    let run = ask(&mut http, "POST /run", &header, r#"{"script":"say","reqid":"r"}"#).json();
    assert_eq!(run["stdout"], format!("{TRACE}\n"));
    assert_eq!(std::fs::read_to_string(agent.work("env")).unwrap(), format!("{TRACE}\n"));
    let told: Value = serde_json::from_slice(&std::fs::read(agent.work("json")).unwrap()).unwrap();
    assert_eq!(told["traceparent"], TRACE);
    let trace = format!("TRACE={TRACE}");
    let peer = ["DISPATCHER=control-1", "PEER=127.0.0.1"];
    let run = ["ACTION=run", peer[0], "EXIT=0", peer[1], "REQID=r", "SCRIPT=say", &trace];
    agent.line("run").is(&run);
    agent.line("auth").is(&["ACTION=auth", "AUTHACTION=run", "IP=127.0.0.1", "RESULT=pass", &trace, "USER=(none)"]);
    let exec = eventually("the executor's line", || {
        audit::lines(&agent.executor_stderr()).into_iter().find(|line| line.action() == "exec")
    });
    assert_eq!(exec.get("TRACE"), Some(TRACE));

    ask(&mut http, "POST /run", &header, r#"{"script":"nope","reqid":"r"}"#);
    agent.line("deny").is(&["ACTION=deny", peer[1], "REQID=r", "SCRIPT=nope", &trace]);
    ask(&mut http, "POST /ping", &header, r#"{"reqid":"p"}"#);
    agent.line("ping").is(&["ACTION=ping", peer[0], peer[1], "REQID=p", &trace]);
    ask(&mut http, "GET /capabilities", &header, "");
    agent.line("capabilities").is(&["ACTION=capabilities", peer[0], peer[1], "SCRIPTS=1", &trace]);
    ask(&mut http, "POST /rotate-serial", &header, r#"{"serial":"ab"}"#);
    agent.line("rotate").is(&["ACTION=rotate", peer[0], peer[1], "SERIAL=ab", "SERIAL_ACTION=add", &trace]);
    ask(&mut http, "POST /renew", &header, r#"{"reqid":"n"}"#);
    agent.line("renew").is(&["ACTION=renew", peer[1], "REQID=n", "STATUS=csr-generated", &trace]);
}

#[test]
fn a_trace_reaches_a_job_and_whoever_asks_for_its_result() {
    let site = site();
    let (agent, header) = (site.agent(), format!("traceparent: {TRACE}\r\n"));
    let mut http = open(&site);
    let body = r#"{"script":"say","reqid":"j","async":true}"#;
    assert_eq!(ask(&mut http, "POST /run", &header, body).status, 202);
    let done = eventually("the end of the job", || {
        let record = ask(&mut http, "GET /result/j", &header, "").json();
        (record["status"] == "done").then_some(record)
    });
    assert_eq!(done["stdout"], format!("{TRACE}\n"));
    assert_eq!(std::fs::read_to_string(agent.work("env")).unwrap(), format!("{TRACE}\n"));
    let trace = format!("TRACE={TRACE}");
    let peer = ["DISPATCHER=control-1", "PEER=127.0.0.1"];
    agent.line("run-async").is(&["ACTION=run-async", peer[0], peer[1], "REQID=j", "SCRIPT=say", &trace]);
    let result = agent.line_where("result", |line| line.get("STATUS") == Some("done"));
    result.is(&["ACTION=result", peer[0], peer[1], "REQID=j", "STATUS=done", &trace]);
    ask(&mut http, "GET /result/none", &header, "");
    agent.line("result-miss").is(&["ACTION=result-miss", peer[0], peer[1], "REQID=none", &trace]);
    ask(&mut http, "POST /cancel/none", &header, "{}");
    assert_eq!(agent.line("cancel-miss").get("TRACE"), Some(TRACE));
    let exec = eventually("the executor's line", || {
        audit::lines(&agent.executor_stderr()).into_iter().find(|line| line.action() == "exec")
    });
    assert_eq!(exec.get("TRACE"), Some(TRACE));
}

#[test]
fn what_is_no_trace_goes_nowhere() {
    let site = site();
    let agent = site.agent();
    let mut http = open(&site);
    for headers in [
        String::new(),
        "traceparent: \r\n".to_owned(),
        format!("traceparent: {}\r\n", TRACE.to_uppercase()),
        format!("traceparent: {TRACE}-more\r\n"),
        format!("traceparent: 01{}\r\n", &TRACE[2..]),
        format!("traceparent: {TRACE}; LD_PRELOAD=/x\r\n"),
        format!("traceparent: {TRACE}\r\ntraceparent: {TRACE}\r\n"),
        format!("x-traceparent: {TRACE}\r\n"),
    ] {
        let run = ask(&mut http, "POST /run", &headers, r#"{"script":"say"}"#).json();
        assert_eq!(run["stdout"], "none\n", "{headers:?}");
        assert_eq!(std::fs::read_to_string(agent.work("env")).unwrap(), "\n", "{headers:?}");
        let told: Value = serde_json::from_slice(&std::fs::read(agent.work("json")).unwrap()).unwrap();
        assert_eq!(told.get("traceparent"), None);
    }
    assert!(!agent.stderr().contains("TRACE=") && !agent.executor_stderr().contains("TRACE="));
    // One request's trace is not the next one's on the same connection.
    ask(&mut http, "POST /ping", &format!("traceparent: {TRACE}\r\n"), &json!({}).to_string());
    assert_eq!(ask(&mut http, "POST /run", "", r#"{"script":"say"}"#).json()["stdout"], "none\n");
}

const PEER: [&str; 2] = ["DISPATCHER=control-1", "PEER=127.0.0.1"];

/// An agent whose hook lets tokens that are good through, and a connection to it.
fn guarded() -> (Site, Http<Tls>) {
    let hook = "[ \"$ENVEXEC_TOKEN\" = hang ] && exec sleep 300; [ \"$ENVEXEC_TOKEN\" = good ] || exit 3";
    let wait = "echo > {work}/started; while [ ! -e {work}/go ]; do sleep 0.02; done";
    let site = Site::builder().agent_hook(hook).agent("auth_hook_timeout = 5\nstdin_timeout = 1");
    let site = site.sh("wait", wait).sh("slow", READS_LATE).start();
    let http = open(&site);
    (site, http)
}

#[test]
fn what_is_refused_is_told_with_its_trace() {
    let (site, mut http) = guarded();
    let (agent, header, trace) = (site.agent(), format!("traceparent: {TRACE}\r\n"), format!("TRACE={TRACE}"));
    let reason = "REASON=insufficient privilege";
    ask(&mut http, "POST /run", &header, r#"{"script":"slow","reqid":"r"}"#);
    agent.line("deny").is(&["ACTION=deny", PEER[0], PEER[1], reason, "REQID=r", "SCRIPT=slow", &trace]);
    ask(&mut http, "GET /capabilities", &header, "");
    agent.line("capabilities-deny").is(&["ACTION=capabilities-deny", PEER[0], PEER[1], reason, &trace]);
    ask(&mut http, "POST /rotate-serial", &header, r#"{"serial":"ab"}"#);
    agent.line("rotate-deny").is(&["ACTION=rotate-deny", PEER[0], reason, &trace]);
    ask(&mut http, "POST /rotate-serial", &header, "{}");
    agent.line("rotate-fail").is(&["ACTION=rotate-fail", PEER[0], "ERROR=serial required", &trace]);
    ask(&mut http, "POST /renew-complete", &header, r#"{"reqid":"n"}"#);
    agent.line("renew-complete").is(&["ACTION=renew-complete", "ERROR=cert required", PEER[1], "REQID=n", &trace]);
    let cert = pki::reissue(&site.authority(), "agent1", &agent.credentials, 365).cert;
    ask(&mut http, "POST /renew-complete", &header, &json!({"cert": cert, "reqid": "n"}).to_string());
    let staged = agent.line_where("renew-complete", |line| line.get("STATUS").is_some());
    staged.is(&["ACTION=renew-complete", PEER[1], "REQID=n", "STATUS=cert-staged", &trace]);
}

#[test]
fn what_becomes_of_no_job_is_told_with_its_trace() {
    let (site, mut http) = guarded();
    let (agent, header, trace) = (site.agent(), format!("traceparent: {TRACE}\r\n"), format!("TRACE={TRACE}"));
    let submit = |http: &mut Http<Tls>, id: &str| {
        let body = json!({"script": "wait", "reqid": id, "async": true, "token": "good"});
        ask(http, "POST /run", &header, &body.to_string()).status
    };
    assert_eq!(submit(&mut http, "j1"), 202);
    agent.worked("started");
    assert_eq!(submit(&mut http, "j2"), 409);
    agent.line("run-async-busy").is(&["ACTION=run-async-busy", PEER[1], "REQID=j2", "SCRIPT=wait", &trace]);
    std::fs::write(agent.work("go"), "").unwrap();
    let own = agent.root.join("var/lib/ctrl-exec-agent/runs/control-1");
    let record = r#"{"reqid":"m","status":"done","script":"x","owner":"control-2","started":"2026-11-20T10:00:00Z"}"#;
    for (name, text) in [("m.json", record), ("odd.json", "no record")] {
        std::fs::write(own.join(name), text).unwrap();
        host::give_to_agent(&own.join(name));
    }
    for (line, action) in [("GET /result/m", "result-deny"), ("POST /cancel/m", "cancel-deny")] {
        assert_eq!(ask(&mut http, line, &header, "").status, 404);
        let first = format!("ACTION={action}");
        agent.line(action).is(&[&first, PEER[0], PEER[1], "REASON=not-owner", "REQID=m", &trace]);
    }
    assert_eq!(ask(&mut http, "GET /result/odd", &header, "").status, 500);
    agent.line("async-store-fail").is(&["ACTION=async-store-fail", "ERROR=*", "REQID=odd", &trace]);
}

#[test]
fn what_a_hook_or_a_script_does_not_do_is_told_with_its_trace() {
    let (site, mut http) = guarded();
    let (agent, header, trace) = (site.agent(), format!("traceparent: {TRACE}\r\n"), format!("TRACE={TRACE}"));
    let body = json!({"script": "slow", "args": vec!["x".repeat(30_000); 3], "token": "good"});
    std::thread::scope(|scope| {
        scope.spawn(|| agent.let_read_late());
        ask(&mut http, "POST /run", &header, &body.to_string());
    });
    agent.line("stdin-timeout").is(&["ACTION=stdin-timeout", "BYTES=*", &trace]);
    ask(&mut http, "POST /run", &header, r#"{"script":"slow","token":"hang"}"#);
    agent.line("auth-hook-timeout").is(&["ACTION=auth-hook-timeout", "TIMEOUT=5", &trace]);
    let hook = agent.root.join("etc/ctrl-exec-agent/auth-hook");
    let path = format!("HOOK={}", hook.display());
    for (mode, error, reason) in
        [(0o644, None, "REASON=hook-not-executable"), (0o775, Some("ERROR=*"), "REASON=hook-not-trusted")]
    {
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(mode)).unwrap();
        ask(&mut http, "POST /run", &header, r#"{"script":"slow"}"#);
        let line = agent.line_where("auth", |line| line.get("REASON").is_some_and(|found| reason.ends_with(found)));
        let fields: Vec<&str> = [Some("ACTION=auth"), error].into_iter().flatten().collect();
        line.is(&[&fields[..], &[&path, reason, "RESULT=error", &trace]].concat());
    }
}

#[test]
fn a_run_whose_caller_gave_it_no_usable_id_is_found_in_both_logs() {
    let site = Site::builder().sh("ok", "exit 3").start();
    let agent = site.agent();
    let mut http = open(&site);
    let ids = [json!(null), json!(1.5), json!(""), json!("a b"), json!("a\0b"), json!("../x")];
    for (place, id) in ids.iter().enumerate() {
        let answer = ask(&mut http, "POST /run", "", &json!({"script": "ok", "reqid": id}).to_string());
        assert_eq!(answer.json()["exit"], 3);
        let exec = eventually("the executor's line", || agent.lines("exec").get(place).cloned());
        let given = exec.get("REQID").unwrap();
        let run = agent.lines("run")[place].clone();
        let ours = format!("EXEC_REQID={given}");
        run.is(&["ACTION=run", "DISPATCHER=control-1", &ours, "EXIT=3", "PEER=127.0.0.1", "REQID=*", "SCRIPT=ok"]);
    }
    for id in [json!("r-1"), json!(7)] {
        ask(&mut http, "POST /run", "", &json!({"script": "ok", "reqid": id}).to_string());
        let text = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
        eventually("the executor's line", || {
            agent.lines("exec").into_iter().find(|line| line.get("REQID") == Some(&text))
        });
        let id = format!("REQID={text}");
        let run = agent.lines("run").pop().unwrap();
        run.is(&["ACTION=run", "DISPATCHER=control-1", "EXIT=3", "PEER=127.0.0.1", &id, "SCRIPT=ok"]);
    }
}
