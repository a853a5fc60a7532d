//! Requests, runs, connections and output.

use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::process::Stdio;

use serde_json::json;

use super::{REFUSED, REQUESTS, RUNS, samples, scrape, site};
use crate::harness::pki::Credentials;
use crate::harness::{Agent, Site, eventually, pki, tls};

fn post(site: &Site, who: &Credentials, path: &str, body: &str) -> u16 {
    tls::connect(site.agent().address(), &site.authority(), who).post(path, body).status
}

fn get(site: &Site, who: &Credentials, path: &str) -> u16 {
    tls::connect(site.agent().address(), &site.authority(), who).get(path).status
}

/// A connection that is no handshake.
fn probe(agent: &Agent, source: [u8; 4]) {
    let mut tcp = tls::tcp_from(IpAddr::from(source), agent.address());
    drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n"));
    drop(tcp.read_to_end(&mut Vec::new()));
}

#[test]
fn requests_are_counted_by_what_they_asked_and_what_became_of_them() {
    let site = site().agents(2).agent("rate_limit_disable = yes").sh("ok", "true").sh("args", "true").start();
    let sidecar = site.agent().root.join("scripts/args.schema.json");
    std::fs::write(sidecar, r#"{"arguments": {"properties": {"x": {"enum": ["a"]}}}, "argv": [{"arg": "x"}]}"#)
        .unwrap();
    site.agent().reload();
    let (trusted, stranger) = (site.dispatcher(), site.agents[1].credentials.clone());
    for path in ["/ping", "/ping", "/nonsense", "/run?script=evil", "/renew", "/cancel/none"] {
        post(&site, &trusted, path, "{}");
    }
    for path in ["/capabilities", "/result/none", "/run"] {
        get(&site, &trusted, path);
    }
    let long = json!({"script": "ok", "pad": "x".repeat(1 << 20)}).to_string();
    for body in [r#"{"script":"ok"}"#, r#"{"script":"evil"}"#, r#"{"script":"args","args":["b"]}"#, "no json", &long] {
        post(&site, &trusted, "/run", body);
    }
    for path in ["/run", "/ping", "/evil"] {
        assert_eq!(post(&site, &stranger, path, r#"{"script":"evil"}"#), 403);
    }
    get(&site, &stranger, "/capabilities");
    std::fs::write(site.agent().revoked(), stranger.serial()).unwrap();
    site.agent().reload();
    post(&site, &stranger, "/ping", "{}");
    let seen = scrape(&site);
    let wanted = [
        ("verb=cancel,verdict=not-found", 1.0),
        ("verb=capabilities,verdict=ok", 1.0),
        ("verb=capabilities,verdict=untrusted", 1.0),
        ("verb=ping,verdict=ok", 2.0),
        ("verb=ping,verdict=revoked", 1.0),
        ("verb=ping,verdict=untrusted", 1.0),
        ("verb=renew,verdict=ok", 1.0),
        ("verb=result,verdict=not-found", 1.0),
        ("verb=run,verdict=denied", 2.0),
        ("verb=run,verdict=invalid", 2.0),
        ("verb=run,verdict=ok", 1.0),
        ("verb=run,verdict=untrusted", 1.0),
        ("verb=unknown,verdict=not-found", 3.0),
        ("verb=unknown,verdict=untrusted", 1.0),
    ];
    assert_eq!(seen.non_zero(REQUESTS), samples(&wanted));
    let lines = |action: &str| site.agent().lines(action).len();
    assert_eq!((lines("deny"), lines("serial-reject"), lines("revoked-cert"), lines("ping")), (2, 3, 1, 2));
    assert_eq!(seen.value("ctrl_exec_agent_reloads_total", &[("result", "ok")]), Some(2.0));
    assert!(!seen.label_values().iter().any(|value| value.contains("evil")), "{:?}", seen.label_values());
    assert_eq!(seen.value("ctrl_exec_agent_trusted_serials", &[]), Some(1.0));
    assert_eq!(seen.value("ctrl_exec_agent_revoked_serials", &[]), Some(1.0));
}

#[test]
fn a_connection_for_which_there_is_no_room_is_closed_at_once_and_told_of() {
    let mut site = site().prepare();
    let trusted = ["control-1", "control-2", "control-3"].map(|id| (id, pki::issue(&site.authority(), id)));
    let map = trusted.iter().map(|(id, credentials)| format!("{} {id}\n", credentials.serial()));
    std::fs::write(site.agent().trust(), map.collect::<String>()).unwrap();
    site.agent_mut().look_after_service();
    // Half of these are for connections; three quarters of that for those of one address.
    site.agent_mut().start_with("ulimit -n 128", [Stdio::null(), Stdio::null()]);
    let agent = site.agent();
    let open = |who: &Credentials| tls::connect(agent.address(), &site.authority(), who);
    // As many as each dispatcher may keep that does nothing with them.
    let mut kept: Vec<_> = trusted.iter().flat_map(|(_, who)| [who; 16]).map(open).collect();
    for http in &mut kept {
        assert_eq!(http.post("/ping", "{}").status, 200);
    }
    assert!(agent.lines("overload").is_empty());
    let mut refused = tls::tcp(agent.address());
    drop(refused.read_to_end(&mut Vec::new()));
    agent.line("overload").is(&["ACTION=overload", "LIVE=48", "PEER=127.0.0.1"]);
    assert_eq!(agent.lines("overload").len(), 1);
    assert_eq!(scrape(&site).value(REFUSED, &[("reason", "overload")]), Some(1.0));
    drop(kept);
    eventually("room", || {
        let config = tls::config(&site.authority(), Some(&trusted[0].1));
        tls::handshake(config, tls::tcp(agent.address())).ok().map(drop)
    });
}

#[test]
fn what_the_hook_refuses_is_denied() {
    let site = site().agent_hook("exit 1").sh("ok", "true").start();
    let trusted = site.dispatcher();
    post(&site, &trusted, "/run", r#"{"script":"ok"}"#);
    get(&site, &trusted, "/capabilities");
    post(&site, &trusted, "/rotate-serial", r#"{"serial":"abc"}"#);
    let wanted = [
        ("verb=capabilities,verdict=denied", 1.0),
        ("verb=rotate-serial,verdict=denied", 1.0),
        ("verb=run,verdict=denied", 1.0),
    ];
    let seen = scrape(&site);
    assert_eq!(seen.non_zero(REQUESTS), samples(&wanted));
    assert_eq!(seen.non_zero(RUNS), []);
}

#[test]
fn runs_are_counted_by_script_and_end_with_their_time_and_output() {
    let site = site()
        .sh("ok", "printf 12345; printf 123 >&2")
        .sh("fails", "exit 3")
        .sh("killed", "kill -9 $$")
        .script("broken", "#!/no/such/interpreter\n")
        .sh("late", "sleep 300")
        .section("[profile quick]\ntimeout = 1\nkill_grace = 0")
        .start();
    let late = format!("late = {} profile=quick\n", site.agent().root.join("scripts/late").display());
    let text = std::fs::read_to_string(site.agent().allowlist()).unwrap();
    let others: Vec<&str> = text.lines().filter(|line| !line.starts_with("late")).collect();
    std::fs::write(site.agent().allowlist(), others.join("\n") + "\n" + &late).unwrap();
    site.agent().reload();
    for script in ["ok", "ok", "fails", "killed", "broken", "late"] {
        site.result(script, &[]);
    }
    // Streamed, as between our own ends on a terminal.
    site.control(&["run", "agent1", "ok", "--stream"]).exits(0);
    let seen = scrape(&site);
    let wanted = [
        ("outcome=failure,script=fails", 1.0),
        ("outcome=not-started,script=broken", 1.0),
        ("outcome=signalled,script=killed", 1.0),
        ("outcome=success,script=ok", 3.0),
        ("outcome=timed-out,script=late", 1.0),
    ];
    assert_eq!(seen.non_zero(RUNS), samples(&wanted));
    assert_eq!(site.agent().lines("run").len(), 7);
    assert_eq!(seen.value(RUNS, &[("script", "ok"), ("outcome", "failure")]), Some(0.0), "there before it happens");
    let output = |stream| seen.value("ctrl_exec_agent_output_bytes_total", &[("stream", stream)]);
    // What the agent says there of a program that never ran is nothing that a script has printed.
    assert_eq!((output("stdout"), output("stderr")), (Some(15.0), Some(9.0)));
    let broken = site.result("broken", &[]);
    assert!(broken["stderr"].as_str().unwrap().starts_with("executor: could not start: exec: "), "{broken}");
    let of_late = |suffix: &str, labels: &[(&str, &str)]| {
        let labels = [&[("script", "late")][..], labels].concat();
        seen.value(&format!("ctrl_exec_agent_run_seconds_{suffix}"), &labels).unwrap()
    };
    assert_eq!((of_late("count", &[]), of_late("bucket", &[("le", "0.25")])), (1.0, 0.0));
    assert!(of_late("sum", &[]) >= 1.0);
    assert_eq!(seen.unit("ctrl_exec_agent_run_seconds"), Some("seconds"));
}

#[test]
fn a_caller_that_goes_away_is_counted_for_its_request_and_its_run() {
    let site = site().sh("wait", "echo > {work}/up; exec sleep 300").start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"wait"}"#;
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    site.agent().worked("up");
    assert_eq!(scrape(&site).value("ctrl_exec_agent_requests_in_progress", &[]), Some(1.0));
    drop(http);
    let wanted = samples(&[("outcome=caller-gone,script=wait", 1.0)]);
    let seen = eventually("the end of the run", || Some(scrape(&site)).filter(|seen| seen.non_zero(RUNS) == wanted));
    assert_eq!(seen.non_zero(REQUESTS), samples(&[("verb=run,verdict=caller-gone", 1.0)]));
    assert_eq!(site.agent().line("run").get("REASON"), Some("caller-gone"));
}

#[test]
fn whoever_gets_no_further_than_the_door_is_counted_with_the_reason() {
    let site = site().start();
    for _ in 0..3 {
        probe(site.agent(), [127, 0, 0, 2]);
    }
    site.agent().line("rate-block");
    probe(site.agent(), [127, 0, 0, 2]);
    let wanted = samples(&[("reason=rate-block", 1.0), ("reason=tls-failure", 3.0)]);
    let seen = eventually("the refusals", || Some(scrape(&site)).filter(|seen| seen.non_zero(REFUSED) == wanted));
    assert_eq!(seen.non_zero("ctrl_exec_agent_blocks_total"), samples(&[("reason=probe", 1.0)]));
    eventually("the block", || {
        (scrape(&site).value("ctrl_exec_agent_blocked_addresses", &[]) == Some(1.0)).then_some(())
    });
    site.agent().reload();
    eventually("no block", || {
        (scrape(&site).value("ctrl_exec_agent_blocked_addresses", &[]) == Some(0.0)).then_some(())
    });
    assert_eq!(scrape(&site).non_zero(REFUSED), wanted, "counts survive a reload");
}

#[test]
fn an_address_that_is_not_allowed_is_counted() {
    let site = site().agent("allowed_ips = 192.0.2.1").start();
    probe(site.agent(), [127, 0, 0, 1]);
    let wanted = samples(&[("reason=ip-block", 1.0)]);
    eventually("the refusal", || (scrape(&site).non_zero(REFUSED) == wanted).then_some(()));
}

#[test]
fn a_request_too_many_is_counted_and_takes_no_place_from_a_scrape() {
    let site = site().agent("max_children = 1").sh("wait", "echo > {work}/up; exec sleep 300").start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"wait"}"#;
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    site.agent().worked("up");
    assert_eq!(post(&site, &site.dispatcher(), "/ping", "{}"), 503);
    assert_eq!(scrape(&site).non_zero(REQUESTS), samples(&[("verb=ping,verdict=overload", 1.0)]));
}
