//! `traceparent`: a run is found again in its caller's trace, and nothing but a trace gets through.

use serde_json::{Value, json};

use crate::harness::http::{Answer, Http};
use crate::harness::tls::Tls;
use crate::harness::{Site, audit, eventually, tls};

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
