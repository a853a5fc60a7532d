//! The gate's order, for every verb: where two gates refuse at once, the first of them is the one that is heard.
//!
//! Each step makes one gate refuse and all behind it, so that every two that can refuse at once do so somewhere. These
//! cannot: allowlist and contract, since only a listed script has a contract, and address and rate, since whatever changes
//! the address list forgets the rate limit's blocks (the gate's own tests ask both).

use std::io::{Read as _, Write as _};
use std::net::IpAddr;

use serde_json::{Value, json};

use crate::harness::http::Http;
use crate::harness::pki::Credentials;
use crate::harness::site::Builder;
use crate::harness::tls::Tls;
use crate::harness::{Agent, Site, eventually, pki, tls};

/// Every verb: its request line, its body, and the log's action where the trust map refuses it. What can be wrong with
/// what they ask for, is.
const VERBS: [(&str, &str, &str); 10] = [
    ("POST /run", r#"{"script":"unlisted","args":["x"]}"#, "serial-reject"),
    ("POST /run", r#"{"script":"contract","args":["x"]}"#, "serial-reject"),
    ("POST /run", r#"{"script":"contract","args":["x"],"async":true,"reqid":"r1"}"#, "serial-reject"),
    ("POST /ping", "{}", "serial-reject"),
    ("GET /capabilities", "", "capabilities-deny"),
    ("GET /result/r1", "", "serial-reject"),
    ("POST /cancel/r1", "{}", "serial-reject"),
    ("POST /renew", "{}", "serial-reject"),
    ("POST /renew-complete", "{}", "serial-reject"),
    ("POST /rotate-serial", r#"{"serial":"ab"}"#, "serial-reject"),
];

/// What the gates before the call say in the log.
const ACTIONS: [&str; 6] =
    ["ip-block", "rate-block", "tls-failure", "revoked-cert", "serial-reject", "capabilities-deny"];

/// The gates of a peer that a request is judged by, in their order.
const GATES: [&str; 4] = ["address", "handshake", "revocation", "trust-map"];

fn builder() -> Builder {
    Site::builder().sh("contract", "echo ran >> {work}/ran").agent_hook("echo asked >> {work}/asked; exit 1")
}

/// An agent whose hook denies everything and whose one script takes a number.
fn site(settings: &str) -> Site {
    let mut site = builder().agent(settings).prepare();
    let contract = r#"{"arguments": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}"#;
    let beside = site.agent().root.join("scripts");
    std::fs::write(beside.join("contract.schema.json"), contract).unwrap();
    // Not on the allowlist, and broken besides.
    std::fs::write(beside.join("unlisted.schema.json"), "{").unwrap();
    site.start(0);
    site
}

/// The agent's files as they were, to be spoilt and mended.
struct Files<'a> {
    site: &'a Site,
    good: [(std::path::PathBuf, String); 4],
}

impl<'a> Files<'a> {
    fn of(site: &'a Site) -> Self {
        let agent = site.agent();
        let ca = agent.root.join("etc/ctrl-exec-agent/ca.crt");
        let read = |path: std::path::PathBuf| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            (path, text)
        };
        Self { site, good: [agent.config(), ca, agent.revoked(), agent.trust()].map(read) }
    }

    /// This gate and all of them behind it refuse from now on; those before it do not.
    fn refuse_from(&self, first: usize) {
        let serial = self.site.dispatcher().serial();
        let (config, map) = (&self.good[0].1, format!("{serial}0 control-1\n"));
        let spoilt = [
            format!("allowed_ips = 10.0.0.0/8\n{config}"),
            pki::foreign_authority().certificate().to_pem(),
            format!("{serial}\n"),
            map,
        ];
        for (number, ((path, good), bad)) in self.good.iter().zip(spoilt).enumerate() {
            std::fs::write(path, if number >= first { &bad } else { good }).unwrap();
        }
        self.reload();
    }

    fn mend(&self) {
        for (path, text) in &self.good {
            std::fs::write(path, text).unwrap();
        }
        self.reload();
    }

    fn reload(&self) {
        assert_eq!(self.site.agent().reload().get("RESULT"), Some("ok"));
    }
}

fn connect(site: &Site) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher())
}

/// One request; the status and the body of its answer.
fn ask(http: &mut Http<Tls>, line: &str, body: &str) -> (u16, Value) {
    http.send(format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let answer = http.answer().unwrap();
    (answer.status, answer.json())
}

/// How often each of the actions stands in the log.
fn counts(agent: &Agent) -> [usize; 6] {
    ACTIONS.map(|action| agent.lines(action).len())
}

/// Waits for one more line of this action, and demands that there is none of the others.
#[track_caller]
fn one_more(agent: &Agent, before: [usize; 6], action: &str) {
    let number = ACTIONS.iter().position(|known| *known == action).unwrap();
    let mut want = before;
    want[number] += 1;
    eventually(&format!("a line {action}"), || (counts(agent)[number] == want[number]).then_some(()));
    assert_eq!(counts(agent), want, "{action}");
}

fn asked(site: &Site) -> usize {
    std::fs::read_to_string(site.agent().work("asked")).unwrap_or_default().lines().count()
}

/// The answer that a gate gives whoever asks for this verb, and the action of its line.
fn refusal(gate: &str, of_trust: &'static str) -> (Value, &'static str) {
    match (gate, of_trust) {
        ("address", _) => (json!({"error": "forbidden"}), "ip-block"),
        ("handshake", _) => (json!({"error": "forbidden"}), "tls-failure"),
        ("revocation", _) => (json!({"error": "certificate revoked"}), "revoked-cert"),
        (_, "serial-reject") => (json!({"error": "serial mismatch", "status": "forbidden"}), of_trust),
        _ => (json!({"error": "forbidden"}), of_trust),
    }
}

#[test]
fn of_all_gates_that_refuse_a_peer_the_first_is_heard_for_every_verb_on_a_kept_connection() {
    let site = site("rate_limit_disable = 1");
    let files = Files::of(&site);
    for (first, gate) in GATES.into_iter().enumerate() {
        files.mend();
        let mut open = VERBS.map(|_| connect(&site));
        for http in &mut open {
            assert_eq!(ask(http, "POST /ping", "{}").0, 200);
        }
        files.refuse_from(first);
        for (http, (line, body, of_trust)) in open.iter_mut().zip(VERBS) {
            let (before, (want, action)) = (counts(site.agent()), refusal(gate, of_trust));
            assert_eq!(ask(http, line, body), (403, want), "{gate} {line}");
            one_more(site.agent(), before, action);
            assert!(http.rest().is_empty(), "the next attempt is a new connection: {gate} {line}");
        }
    }
    assert_eq!(asked(&site), 0);
}

#[test]
fn of_all_gates_that_refuse_a_peer_the_first_is_heard_for_every_verb_on_a_new_connection() {
    let site = site("rate_limit_disable = 1");
    let files = Files::of(&site);
    // The gates before these leave no connection to ask on.
    for (first, gate) in GATES.into_iter().enumerate().skip(2) {
        files.refuse_from(first);
        for (line, body, of_trust) in VERBS {
            let (before, (want, action)) = (counts(site.agent()), refusal(gate, of_trust));
            assert_eq!(ask(&mut connect(&site), line, body), (403, want), "{gate} {line}");
            one_more(site.agent(), before, action);
        }
    }
    assert_eq!(asked(&site), 0);
}

/// Tries to connect with a certificate that the agent does not take; nothing is ever served.
fn is_turned_away(site: &Site, credentials: &Credentials) {
    let config = tls::config(&site.authority(), Some(credentials));
    let tcp = tls::tcp_from(IpAddr::from([127, 0, 0, 1]), site.agent().address());
    if let Ok(mut tls) = tls::handshake(config, tcp) {
        drop(tls.write_all(b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        let mut served = Vec::new();
        drop(tls.read_to_end(&mut served));
        assert!(served.is_empty(), "{served:?}");
    }
}

#[test]
fn who_is_refused_before_a_request_is_refused_by_the_first_gate_too() {
    let site = site("rate_limit_volume = 0/0/0");
    let (agent, files) = (site.agent(), Files::of(&site));
    let foreign = pki::issue(&pki::foreign_authority(), "ctrl-exec-dispatcher");
    // Revoked, unknown to the trust map, and of another CA.
    std::fs::write(agent.revoked(), format!("{}\n", foreign.serial())).unwrap();
    files.reload();
    for _ in 0..3 {
        let before = agent.lines("tls-failure").len();
        is_turned_away(&site, &foreign);
        eventually("a failed handshake", || (agent.lines("tls-failure").len() > before).then_some(()));
    }
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.1", "REASON=probe"]);
    // The address is blocked from now on, whatever it would show.
    let before = counts(agent);
    is_turned_away(&site, &foreign);
    is_turned_away(&site, &site.dispatcher());
    assert_eq!(counts(agent), before);
    files.refuse_from(0);
    let before = counts(agent);
    is_turned_away(&site, &foreign);
    one_more(agent, before, "ip-block");
}

#[test]
fn of_all_gates_that_refuse_a_call_the_first_is_heard_and_the_hook_is_asked_last() {
    let site = site("");
    let mut kept = connect(&site);
    for mut fresh in [false, true, false, true].map(|fresh| fresh.then(|| connect(&site))) {
        let http = fresh.as_mut().unwrap_or(&mut kept);
        for more in [json!({}), json!({"async": true, "reqid": "r2"})] {
            let mut run = |script: &str, args: Value| {
                let mut body = json!({"script": script, "args": args});
                body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let before = (asked(&site), site.agent().lines("deny").len());
                let (status, answer) = ask(http, "POST /run", &body.to_string());
                assert_eq!((status, &answer["exit"]), (200, &json!(-1)), "{answer}");
                let lines = site.agent().lines("deny");
                assert_eq!(lines.len(), before.1 + 1);
                let reason = lines.last().unwrap().get("REASON").map(str::to_owned);
                (answer["error"].as_str().unwrap().to_owned(), reason, asked(&site) - before.0)
            };
            let refused = run("unlisted", json!(["x"]));
            assert_eq!(refused, ("script not permitted".to_owned(), None, 0));
            let (_, reason, times) = run("contract", json!(["x"]));
            assert_eq!((reason.as_deref(), times), (Some("arguments-not-allowed"), 0));
            let refused = run("contract", json!(["7"]));
            assert_eq!(refused, ("not authorised: denied".to_owned(), Some("denied".to_owned()), 1));
        }
        let before = asked(&site);
        assert_eq!(ask(http, "GET /capabilities", ""), (403, json!({"error": "not authorised"})));
        let rotate = ask(http, "POST /rotate-serial", r#"{"serial":"ab"}"#);
        assert_eq!(rotate, (403, json!({"error": "not authorised: denied"})));
        assert_eq!(asked(&site), before + 2);
        for (line, status) in [
            ("POST /ping", 200),
            ("GET /result/r9", 404),
            ("POST /cancel/r9", 404),
            ("POST /renew", 200),
            ("POST /renew-complete", 200),
            ("GET /nothing", 404),
        ] {
            assert_eq!(ask(http, line, "").0, status, "{line}");
        }
        assert_eq!(asked(&site), before + 2, "these have no hook");
    }
    assert!(!site.agent().work("ran").exists());
}

/// Takes the dispatcher's serial back from a running agent.
fn revoke(site: &Site) {
    std::fs::write(site.agent().revoked(), format!("{}\n", site.dispatcher().serial())).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
}

/// The connection ends with the answer, and the script did not run.
#[track_caller]
fn is_revoked(site: &Site, http: &mut Http<Tls>) {
    let answer = http.answer().unwrap();
    assert_eq!((answer.status, answer.json()), (403, json!({ "error": "certificate revoked" })));
    assert_eq!(http.rest(), b"");
    site.agent().line("revoked-cert");
    assert!(!site.agent().work("ran").exists() && site.agent().lines("run").is_empty());
}

#[test]
fn a_request_whose_body_was_on_its_way_is_not_served_to_one_who_was_revoked_meanwhile() {
    let site = Site::builder().sh("ok", "echo ran >> {work}/ran").start();
    let body = r#"{"script":"ok","reqid":"00000000000000aa"}"#;
    let (beginning, rest) = body.split_at(9);
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/ping", "{}").status, 200);
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{beginning}", body.len()));
    // Another request of the same peer is judged, so this one's head was read.
    let mut other = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    assert_eq!(other.post("/ping", "{}").status, 200);
    revoke(&site);
    http.send(rest);
    is_revoked(&site, &mut http);
}

#[test]
fn a_run_whose_hook_took_its_time_does_not_begin_for_one_who_was_revoked_meanwhile() {
    let hook = "echo asked > {work}/asked; until [ -e {work}/go ]; do sleep 0.01; done";
    for request in [r#"{"script":"ok"}"#, r#"{"script":"ok","async":true,"reqid":"00000000000000aa"}"#] {
        let site = Site::builder().sh("ok", "echo ran >> {work}/ran").agent_hook(hook).start();
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        let length = request.len();
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{request}"));
        site.agent().worked("asked");
        revoke(&site);
        std::fs::write(site.agent().work("go"), "").unwrap();
        is_revoked(&site, &mut http);
    }
}
