//! Whom an agent serves: certificates of its CA that its trust map names and its revocation list does not.

use std::io::Read as _;

use ctrl_exec::pki::ca::Ca;
use serde_json::json;

use crate::harness::pki::Credentials;
use crate::harness::site::Builder;
use crate::harness::{Agent, Site, pki, tls};

/// Documented endpoints, those of the original, and some that are none.
const REQUESTS: [(&str, &str); 12] = [
    ("POST", "/run"),
    ("POST", "/ping"),
    ("GET", "/capabilities"),
    ("GET", "/run"),
    ("GET", "/result/abc"),
    ("POST", "/renew"),
    ("POST", "/renew-complete"),
    ("POST", "/rotate-serial"),
    ("GET", "/health"),
    ("GET", "/"),
    ("DELETE", "/no/such/thing?x=y"),
    ("OPTIONS", "*"),
];

fn site() -> Builder {
    Site::builder().agent("rate_limit_disable = 1")
}

/// The connection fails, during the handshake or at the first read behind it, and the agent says why.
#[track_caller]
fn is_turned_away(agent: &Agent, ca: &Ca, credentials: Option<&Credentials>, reason: &str) {
    let before = agent.lines("tls-failure").len();
    if let Ok(mut tls) = tls::handshake(tls::config(ca, credentials), tls::tcp(agent.address())) {
        let mut buffer = [0];
        assert!(tls.read(&mut buffer).is_err(), "served without a right certificate");
    }
    let line = crate::harness::eventually("a line about it", || agent.lines("tls-failure").get(before).cloned());
    line.is(&["ACTION=tls-failure", "PEER=127.0.0.1", "REASON=*"]);
    assert!(line.get("REASON").unwrap().contains(reason), "{line:?}");
}

#[test]
fn without_a_certificate_of_the_ca_that_is_valid_now_no_request_is_read() {
    let site = site().start();
    let (agent, ca) = (site.agent(), site.authority());
    is_turned_away(agent, &ca, None, "certificate");
    is_turned_away(agent, &ca, Some(&pki::issue(&pki::foreign_authority(), "ctrl-exec-dispatcher")), "CA");
    is_turned_away(agent, &ca, Some(&pki::issue_expired(&ca, "ctrl-exec-dispatcher")), "expired");
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn another_certificate_of_the_ca_never_reaches_an_endpoint() {
    let site = site().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    for (method, path) in REQUESTS {
        let mut http = tls::connect(agent.address(), &site.authority(), &other.credentials);
        http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = http.answer().unwrap();
        assert!(http.rest().is_empty(), "a refused peer's connection is over");
        let body = if path == "/capabilities" {
            json!({"error": "forbidden"})
        } else {
            json!({"error": "serial mismatch", "status": "forbidden"})
        };
        assert_eq!((answer.status, answer.json()), (403, body), "{method} {path}");
    }
    let serial = format!("PEER_SERIAL={}", other.credentials.serial());
    agent.line("serial-reject").is(&["ACTION=serial-reject", "PEER=127.0.0.1", &serial, "REQID=(none)"]);
    let denied = agent.line("capabilities-deny");
    denied.is(&["ACTION=capabilities-deny", "PEER=127.0.0.1", &serial, "REASON=serial-mismatch"]);
}

#[test]
fn a_strangers_request_id_is_never_used() {
    let site = site().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1].credentials);
    let body = json!({"script": "ok", "reqid": "forged-1", "serial": "ab", "async": true}).to_string();
    for (number, path) in
        ["/run", "/ping", "/renew", "/renew-complete", "/rotate-serial", "/cancel/x"].into_iter().enumerate()
    {
        let answer = tls::connect(agent.address(), &site.authority(), other).post(path, &body);
        assert_eq!(answer.json(), json!({"error": "serial mismatch", "status": "forbidden"}), "{path}");
        let serial = format!("PEER_SERIAL={}", other.serial());
        let line = &agent.lines("serial-reject")[number];
        line.is(&["ACTION=serial-reject", "PEER=127.0.0.1", &serial, "REQID=(none)"]);
    }
    assert!(!agent.stderr().contains("forged-1"));
    // Only a question for a result has its id in its path, which is what the original logs.
    tls::connect(agent.address(), &site.authority(), other).get("/result/asked-1");
    let line = &agent.lines("serial-reject")[6];
    assert_eq!(line.get("REQID"), Some("asked-1"));
    tls::connect(agent.address(), &site.authority(), other).get("/result/%22%20RESULT=ok");
    assert_eq!(agent.lines("serial-reject")[7].get("REQID"), Some("(none)"));
}

#[test]
fn a_stranger_learns_nothing_from_a_request_that_is_wrong_otherwise() {
    let site = site().agents(2).start();
    let other = &site.agents[1].credentials;
    let headers = "X: y\r\n".repeat(40);
    for head in [format!("POST /run HTTP/1.1\r\n{headers}"), "POST /run HTTP/1.1\r\nContent-Length: 2000000\r\n".into()]
    {
        let mut http = tls::connect(site.agent().address(), &site.authority(), other);
        http.send(head + "Host: x\r\n\r\n");
        assert_eq!(http.answer().unwrap().status, 403);
    }
}

#[test]
fn paths_that_are_none_are_not_found_by_a_trusted_dispatcher() {
    let site = site().start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    for (method, path) in
        REQUESTS.into_iter().skip(3).filter(|(_, path)| !path.contains("re") && *path != "/rotate-serial")
    {
        http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.json()), (404, json!({"error": "not found"})), "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[test]
fn a_revoked_serial_is_refused_in_every_spelling() {
    let site = site().start();
    let agent = site.agent();
    let serial = site.dispatcher().serial();
    let colons = serial.as_bytes().rchunks(2).rev().map(|pair| String::from_utf8_lossy(pair).into_owned());
    let colons = colons.collect::<Vec<_>>().join(":");
    for spelling in [
        serial.clone(),
        serial.to_uppercase(),
        format!("0x{serial}"),
        format!("serial={}", serial.to_uppercase()),
        format!("  000{serial}   # the old one"),
        colons.to_uppercase(),
        u128::from_str_radix(&serial, 16).unwrap().to_string(),
    ] {
        std::fs::write(agent.revoked(), format!("# revoked\n\n{spelling}\n")).unwrap();
        assert_eq!(agent.reload().get("RESULT"), Some("ok"));
        let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
        let answer = http.get("/capabilities");
        assert_eq!((answer.status, answer.json()), (403, json!({"error": "certificate revoked"})), "{spelling}");
    }
    let serial = format!("SERIAL={serial}");
    agent.line("revoked-cert").is(&["ACTION=revoked-cert", "PEER=127.0.0.1", &serial]);
    std::fs::write(agent.revoked(), "# nobody\n").unwrap();
    agent.reload();
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn an_empty_or_missing_trust_map_trusts_nobody() {
    let site = site().start();
    let agent = site.agent();
    for missing in [false, true] {
        std::fs::write(agent.trust(), "# nobody\nnonsense\n").unwrap();
        if missing {
            std::fs::remove_file(agent.trust()).unwrap();
        }
        agent.reload();
        for (method, path) in REQUESTS.into_iter().chain([("POST", "/cancel/abc")]) {
            let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
            http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"));
            let answer = http.answer().unwrap();
            let error = if path == "/capabilities" { "forbidden" } else { "serial mismatch" };
            assert_eq!((answer.status, answer.json()["error"].as_str()), (403, Some(error)), "{method} {path}");
        }
    }
    for action in ["ping", "run", "capabilities", "renew", "rotate", "result", "result-miss", "cancel-miss"] {
        assert!(agent.lines(action).is_empty(), "{action}");
    }
    let denied = agent.line("capabilities-deny");
    assert_eq!(denied.get("REASON"), Some("no trusted dispatchers stored"));
}

#[test]
fn a_serial_that_is_no_longer_trusted_loses_the_next_request_of_its_open_connection() {
    let site = site().sh("ok", "echo ran").start();
    let agent = site.agent();
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    let trusted = std::fs::read_to_string(agent.trust()).unwrap();
    std::fs::write(agent.trust(), "abc other\n").unwrap();
    agent.reload();
    assert_eq!(http.post("/run", r#"{"script":"ok"}"#).json()["error"], "serial mismatch");
    std::fs::write(agent.trust(), &trusted).unwrap();
    agent.reload();
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    std::fs::write(agent.revoked(), site.dispatcher().serial()).unwrap();
    agent.reload();
    assert_eq!(http.post("/ping", "{}").json()["error"], "certificate revoked");
}

#[test]
fn several_dispatchers_are_known_by_their_own_ids() {
    let site = site().allow("cat = /bin/cat").start();
    let agent = site.agent();
    let second = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let map = std::fs::read_to_string(agent.trust()).unwrap();
    std::fs::write(agent.trust(), format!("{map}{} control-2\n", second.serial().to_uppercase())).unwrap();
    agent.reload();
    for (credentials, id) in [(site.dispatcher(), "control-1"), (second, "control-2")] {
        let mut http = tls::connect(agent.address(), &site.authority(), &credentials);
        let said = http.post("/run", r#"{"script":"cat"}"#).json()["stdout"].as_str().unwrap().to_owned();
        assert!(said.contains(&format!(r#""dispatcher":"{id}""#)), "{said}");
        agent.line_where("run", |line| line.get("DISPATCHER") == Some(id));
    }
}

#[test]
fn a_refusal_is_never_lost_behind_a_large_body() {
    let site = Site::builder().agents(2).agent("rate_limit_disable = 1").start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    let body = serde_json::json!({ "script": "ok", "args": vec!["x".repeat(100_000); 9] }).to_string();
    for _ in 0..20 {
        let refused = tls::connect(agent.address(), &site.authority(), &other.credentials).post("/run", &body);
        assert_eq!(refused.status, 403);
    }
}
