//! `ping`: who answers, with what.

use std::process::Stdio;
use std::time::{Duration, Instant};

use ctrl_exec::audit::{Ident, Logger};
use ctrl_exec::conf::Root;
use ctrl_exec::dispatcher;
use ctrl_exec::dispatcher::call::Fleet;
use serde_json::json;

use crate::harness::impostor::{Impostor, SILENCE};
use crate::harness::{Site, eventually, pki, tls};

#[test]
fn a_ping_shows_a_table_with_version_and_expiry() {
    let site = Site::builder().agents(2).start();
    let ran = site.control(&["ping", "agent2", "agent1"]).exits(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "HOST                            STATUS    RTT       CERT EXPIRY                   VERSION");
    assert_eq!(lines[1], "-".repeat(85));
    let mut hosts: Vec<&str> = lines[2..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["agent1", "agent2"]);
    for line in &lines[2..] {
        let agent = site.agents.iter().find(|agent| line.starts_with(&agent.name)).unwrap();
        let expiry = agent.credentials.certificate().expiry_text();
        assert!(line.contains("  ok        ") && line.contains(&expiry), "{line}");
        assert!(line.ends_with(env!("CARGO_PKG_VERSION")), "{line}");
    }
}

#[test]
fn json_pings_have_the_documented_keys() {
    let site = Site::builder().start();
    let ran = site.control(&["--json", "ping", "agent1"]).exits(0);
    let result = ran.result();
    let mut keys: Vec<&str> = result.as_object().unwrap().keys().map(String::as_str).collect();
    keys.retain(|key| *key != "reported_hostname");
    keys.sort_unstable();
    assert_eq!(keys, ["expiry", "host", "reqid", "rtt", "session", "staged", "status", "version"]);
    assert_eq!(
        (&result["host"], &result["status"], &result["staged"]),
        (&json!("agent1"), &json!("ok"), &json!(false))
    );
    ran.lines("ping")[0].is(&["ACTION=ping", "REQID=*", "RESULT=ok", "RTT=*", "TARGET=*"]);
}

#[test]
fn a_host_that_does_not_answer_is_a_row_with_its_error_and_a_status_of_one() {
    let mut site = Site::builder().agents(2).start();
    site.agents[1].stop();
    let ran = site.control(&["ping", "agent1", "agent2"]).exits(1);
    assert!(ran.stdout.contains("    ERROR: host '127.0.0.1' did not respond on port "), "{}", ran.stdout);
    let failed = ran.lines("ping").into_iter().find(|line| line.get("ERROR").is_some()).unwrap();
    failed.is(&["ACTION=ping", "ERROR=*", "REQID=*", "RTT=*", "TARGET=*"]);
    let json = site.control(&["--json", "ping", "agent2"]).exits(1).result();
    assert_eq!((&json["status"], &json["host"]), (&json!("error"), &json!("agent2")), "{json}");
}

#[test]
fn an_agent_that_does_not_trust_this_dispatcher_answers_forbidden() {
    let site = Site::builder().start();
    std::fs::write(site.agent().trust(), "").unwrap();
    site.agent().reload();
    let json = site.control(&["--json", "ping", "agent1"]).exits(1).result();
    assert_eq!(json["error"], "forbidden: serial mismatch", "{json}");
}

#[test]
fn answers_that_are_no_answers_are_errors_of_that_host() {
    let site = Site::builder().agents(0).start();
    let ca = site.authority();
    let credentials = pki::issue(&ca, "odd");
    for (answer, error) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "invalid JSON"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{\"a\"", "invalid JSON"),
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "500 Internal Server Error"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "lost before the answer"),
        ("not http at all\r\n\r\n", "lost before the answer"),
        ("", "lost before the answer"),
    ] {
        let impostor = Impostor::start(&ca, &credentials, answer);
        site.register("odd", impostor.address.port(), &credentials);
        let json = site.control(&["--json", "ping", "odd"]).exits(1).result();
        assert!(json["error"].as_str().unwrap().contains(error), "{answer:?}: {json}");
    }
}

#[test]
fn a_ping_echoes_its_id_with_its_type() {
    let site = Site::builder().start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    for (body, reqid) in [
        (r#"{"reqid":"abc"}"#, json!("abc")),
        (r#"{"reqid":42}"#, json!(42)),
        ("", json!("")),
        ("[]", json!("")),
        ("null", json!("")),
        ("not json", json!("")),
    ] {
        let answer = http.post("/ping", body);
        assert_eq!((answer.status, &answer.json()["reqid"]), (200, &reqid), "{body}");
    }
}

#[test]
fn an_agent_calls_itself_by_the_full_name_that_its_resolver_knows() {
    for (name, known, full) in [
        ("web7", "127.0.1.1 web7.example.org web7", "web7.example.org"),
        ("web7.example.net", "127.0.1.1 web7.example.net web7", "web7.example.net"),
        ("lonely7", "127.0.1.1 lonely7", "lonely7"),
    ] {
        let mut site = Site::builder().prepare();
        let hosts = site.dir().join("hosts");
        std::fs::write(&hosts, format!("{known}\n")).unwrap();
        let agent = site.agent_mut();
        agent.look_after_service();
        let place = "echo \"$0\" > /proc/sys/kernel/hostname; mount --bind \"$1\" /etc/hosts; shift; exec \"$@\"";
        let words = format!("set -- unshare --uts --mount sh -c '{place}' {name} {} \"$@\"", hosts.display());
        agent.start_with(&words, [Stdio::null(), Stdio::null()]);
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        for told in [http.post("/ping", "{}").json(), http.get("/capabilities").json()] {
            assert_eq!(told["host"], full, "{told}");
        }
        site.register("agent1", site.agent().address().port(), &site.agent().credentials);
        let shown = site.control(&["--json", "ping", "agent1"]).exits(0).result();
        assert_eq!(shown["reported_hostname"], full, "{shown}");
    }
}

#[test]
fn the_configured_port_is_for_agents_with_the_default_port() {
    let site = Site::builder().agents(0).dispatcher("port = 1").start();
    let credentials = pki::issue(&site.authority(), "web");
    site.register("web", 7443, &credentials);
    site.register("db", 2, &credentials);
    for (words, port) in
        [(&["ping", "web"][..], 1), (&["ping", "db"], 2), (&["ping", "web:4"], 4), (&["--port", "3", "ping", "web"], 3)]
    {
        let ran = site.control(words).exits(1);
        assert!(ran.stdout.contains(&format!("did not respond on port {port} - connection refused")), "{ran:?}");
    }
}

#[test]
fn an_agent_that_says_nothing_has_timed_out() {
    let site = Site::builder().agents(0).dispatcher("read_timeout = 1").start();
    let credentials = pki::issue(&site.authority(), "mute");
    let mute = Impostor::start(&site.authority(), &credentials, SILENCE);
    site.register("mute", mute.address.port(), &credentials);
    let json = site.control(&["--json", "ping", "mute"]).exits(1).result();
    assert_eq!(json["error"], "host '127.0.0.1' did not respond - connection timed out", "{json}");
}

/// Many on one connection, each behind the other's answer.
const IN_A_ROW: usize = 50;
/// A message in two segments, or one that waits for the other end's word (RFC 896), costs 40 ms each.
const WITHOUT_DELAYS: Duration = Duration::from_secs(1);

#[test]
fn no_ping_in_a_row_waits_for_an_acknowledgement_over_http_1() {
    let site = Site::builder().agent("rate_limit_disable = 1").start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    without_delays(|| {
        for _ in 0..IN_A_ROW {
            assert_eq!(http.post("/ping", "{}").status, 200);
        }
    });
}

#[test]
fn no_ping_in_a_row_waits_for_an_acknowledgement_over_http_2() {
    let site = Site::builder().agent("rate_limit_disable = 1").start();
    let root = Root::new(Some(site.control.clone()));
    let config = root.path("/etc/ctrl-exec/ctrl-exec.conf");
    let (loaded, _) = dispatcher::site::Site::load(&config, &root).unwrap();
    let log = Logger::to_writer(Ident::Dispatcher, Box::new(std::io::sink()));
    let fleet = Fleet { dialer: loaded.dialer(None).unwrap(), log, most: 1 };
    let target = dispatcher::resolve::resolve(&loaded.registry, &["agent1".to_owned()], None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    without_delays(|| {
        for _ in 0..IN_A_ROW {
            let results = runtime.block_on(dispatcher::ping::ping(&fleet, target.clone(), "r1", |_| {}));
            assert_eq!(results[0].text("status"), "ok", "{results:?}");
        }
    });
}

/// A busy machine makes some slow. What waits does so every time.
fn without_delays(mut work: impl FnMut()) {
    eventually("a row of pings without delays", || {
        let before = Instant::now();
        work();
        (before.elapsed() < WITHOUT_DELAYS).then_some(())
    });
}
