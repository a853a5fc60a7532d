//! Rate limits and address lists: what a stranger may try, and what a dispatcher may do.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};

use nix::sys::signal::Signal;

use crate::harness::background::Background;
use crate::harness::{Agent, Site, eventually, host, tls};

const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Sends garbage and waits for the end of the connection.
fn probe(agent: &Agent) {
    let mut tcp = tls::tcp(agent.address());
    drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n"));
    let mut rest = Vec::new();
    drop(tcp.read_to_end(&mut rest));
}

/// Whether a trusted dispatcher at this address is served.
fn is_served(site: &Site, source: [u8; 4], address: SocketAddr) -> bool {
    let config = tls::config(&site.authority(), Some(&site.dispatcher()));
    tls::handshake(config, tls::tcp_from(IpAddr::from(source), address)).is_ok()
}

#[test]
fn three_failed_handshakes_block_their_address_and_no_other() {
    let site = Site::builder().start();
    let agent = site.agent();
    assert!(is_served(&site, [127, 0, 0, 1], agent.address()));
    for _ in 0..3 {
        probe(agent);
    }
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.1", "REASON=probe"]);
    assert_eq!(agent.lines("tls-failure").len(), 3);
    site.control(&["ping", "agent1"]).exits(1);
    probe(agent);
    assert!(is_served(&site, ELSEWHERE, agent.address()));
    assert_eq!((agent.lines("rate-block").len(), agent.lines("tls-failure").len()), (1, 3), "one line a block");
}

#[test]
fn a_reload_forgets_blocks() {
    let site = Site::builder().start();
    for _ in 0..3 {
        probe(site.agent());
    }
    site.agent().line("rate-block");
    site.control(&["ping", "agent1"]).exits(1);
    site.agent().reload();
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn the_eleventh_connection_that_proves_nothing_is_blocked() {
    let site = Site::builder().agent("rate_limit_probe = 0/0/0").start();
    let agent = site.agent();
    for _ in 0..10 {
        probe(agent);
    }
    assert!(agent.lines("rate-block").is_empty());
    probe(agent);
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.1", "REASON=volume"]);
    site.control(&["ping", "agent1"]).exits(1);
}

#[test]
fn an_agent_that_is_no_dispatcher_runs_into_the_volume_limit() {
    let site = Site::builder().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    for _ in 0..10 {
        assert_eq!(
            tls::connect(agent.address(), &site.authority(), &other.credentials).post("/ping", "{}").status,
            403
        );
    }
    assert!(!is_served(&site, [127, 0, 0, 1], agent.address()));
    agent.line("rate-block");
}

#[test]
fn a_connection_that_stays_open_is_no_way_round_the_limit() {
    let site = Site::builder().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    for _ in 0..10 {
        let mut http = tls::connect(agent.address(), &site.authority(), &other.credentials);
        // All at once; the second is never answered.
        let ping = "POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
        http.send(ping.repeat(2));
        assert_eq!(http.answer().unwrap().status, 403);
        assert!(http.rest().is_empty());
    }
    assert_eq!(agent.lines("serial-reject").len(), 10);
    assert!(!is_served(&site, [127, 0, 0, 1], agent.address()));
}

#[test]
fn a_dispatcher_may_open_a_hundred_connections_at_once() {
    let site = Site::builder().sh("ok", "true").dispatcher("max_parallel = 100").start();
    let hosts: Vec<String> = (1..=100).map(|number| format!("host{number}")).collect();
    for host in &hosts {
        site.register(host, site.agent().address().port(), &site.agent().credentials);
    }
    let words: Vec<&str> = ["run"].into_iter().chain(hosts.iter().map(String::as_str)).chain(["ok"]).collect();
    for _ in 0..3 {
        site.control(&words).exits(0);
    }
    for action in ["rate-block", "overload", "tls-failure"] {
        assert!(site.agent().lines(action).is_empty());
    }
}

#[test]
fn a_known_dispatcher_may_open_hundreds_of_connections_at_once() {
    // What is tested is admission, so there is a place for each request.
    let site = Site::builder().agent("max_children = 1000").dispatcher("max_parallel = 400").start();
    site.control(&["ping", "agent1"]).exits(0);
    let words: Vec<&str> = std::iter::once("ping").chain(std::iter::repeat_n("agent1", 400)).collect();
    let ran = site.control(&words).exits(0);
    assert_eq!(ran.lines("ping").len(), 400);
    site.control(&["ping", "agent1"]).exits(0);
    assert!(site.agent().lines("rate-block").is_empty() && site.agent().lines("overload").is_empty());
}

#[test]
fn a_proven_dispatcher_is_never_blocked() {
    let site = Site::builder().sh("ok", "true").start();
    for _ in 0..50 {
        site.control(&["ping", "agent1"]).exits(0);
    }
    assert!(site.agent().lines("rate-block").is_empty());
}

#[test]
fn a_dispatcher_that_asks_nothing_or_nothing_readable_is_never_blocked() {
    let site = Site::builder().start();
    let agent = site.agent();
    let connect = || tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    let mut idle = Vec::new();
    for _ in 0..40 {
        idle.push(connect());
        // Cut off within the head of a request.
        connect().send("POST /ping HTT");
        let mut oversized = connect();
        oversized.send(format!("GET /ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000)));
        assert_eq!(oversized.answer().unwrap().status, 431);
        drop(idle.split_off(idle.len() / 2));
    }
    drop(idle);
    site.control(&["ping", "agent1"]).exits(0);
    assert!(agent.lines("rate-block").is_empty() && agent.lines("overload").is_empty());
}

#[test]
fn a_stranger_of_the_ca_that_asks_nothing_runs_into_the_volume_limit() {
    let site = Site::builder().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    eventually("a block", || {
        let config = tls::config(&site.authority(), Some(&other.credentials));
        drop(tls::handshake(config, tls::tcp(agent.address())));
        (!agent.lines("rate-block").is_empty()).then_some(())
    });
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.1", "REASON=volume"]);
}

#[test]
fn addresses_that_are_not_allowed_get_no_handshake() {
    let site = Site::builder().agent("allowed_ips = 10.0.0.0/8, 127.0.0.2/32").start();
    site.control(&["ping", "agent1"]).exits(1);
    site.agent().line("ip-block").is(&["ACTION=ip-block", "PEER=127.0.0.1"]);
    assert!(is_served(&site, ELSEWHERE, site.agent().address()));
    assert!(site.agent().lines("tls-failure").is_empty());
}

#[test]
fn limits_of_ones_own_and_none_at_all_are_possible() {
    let own = Site::builder().agent("rate_limit_probe = 1/600/3600").start();
    probe(own.agent());
    own.agent().line("rate-block");
    let none = Site::builder().agent("rate_limit_disable = 1").start();
    for _ in 0..15 {
        probe(none.agent());
    }
    let count = || (none.agent().lines("tls-failure").len() == 15).then_some(());
    eventually("fifteen failures", count);
    none.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn a_dispatcher_that_is_turned_away_for_want_of_room_is_never_blocked() {
    let site = Site::builder().agent("max_children = 1").sh("wait", "echo > {work}/up; exec sleep 300").start();
    let agent = site.agent();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    agent.worked("up");
    for _ in 0..12 {
        let turned_away = tls::connect(agent.address(), &site.authority(), &site.dispatcher()).post("/ping", "{}");
        assert_eq!(turned_away.status, 503);
    }
    assert!(is_served(&site, [127, 0, 0, 1], agent.address()));
    assert!(agent.lines("rate-block").is_empty());
    for executor in host::children(agent.pid()) {
        for monitor in host::children(executor) {
            host::kill(monitor, Signal::SIGKILL);
        }
    }
    run.end().exits(1);
    site.control(&["ping", "agent1"]).exits(0);
}
