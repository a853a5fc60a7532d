//! Rate limits and address lists: what a stranger may try, and what a dispatcher may do.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::harness::background::Background;
use crate::harness::http::Http;
use crate::harness::{Agent, Site, eventually, host, pki, tls};

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
    let hosts: Vec<String> = (1..=host::at_once(100)).map(|number| format!("host{number}")).collect();
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

/// An agent that listens on one socket for IPv6 and IPv4, and how a caller reaches it by either.
fn on_both(settings: &str) -> (Site, [SocketAddr; 2]) {
    let mut site = Site::builder().agent(settings).prepare();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), config.replace("bind = 127.0.0.1\n", "")).unwrap();
    site.start(0);
    let port = site.agent().address().port();
    let [six, four] = [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)];
    (site, [SocketAddr::new(six, port), SocketAddr::new(four, port)])
}

fn serves(site: &Site, address: SocketAddr) -> bool {
    let config = tls::config(&site.authority(), Some(&site.dispatcher()));
    let Ok(stream) = tls::handshake(config, tls::tcp(address)) else { return false };
    assert_eq!(Http::new(stream).post("/ping", "{}").status, 200);
    true
}

#[test]
fn an_address_list_means_peers_of_either_family_on_one_socket() {
    for (list, allowed) in [
        ("::1", [true, false]),
        ("::/64, 10.0.0.0/8", [true, false]),
        ("127.0.0.0/8", [false, true]),
        ("fd00::/8, 127.0.0.1", [false, true]),
        ("0.0.0.0/0", [false, true]),
        ("::1/128, 127.0.0.1/32", [true, true]),
    ] {
        let (site, places) = on_both(&format!("allowed_ips = {list}"));
        assert_eq!(places.map(|place| serves(&site, place)), allowed, "{list}");
        let refused = site.agent().lines("ip-block");
        let want = places.iter().zip(allowed).filter(|(_, allowed)| !allowed);
        let want: Vec<String> = want.map(|(place, _)| format!("PEER={}", place.ip())).collect();
        assert_eq!(refused.len(), want.len(), "{list}: {refused:?}");
        refused.iter().zip(&want).for_each(|(line, peer)| line.is(&["ACTION=ip-block", peer]));
        assert!(site.agent().lines("tls-failure").is_empty());
    }
}

#[test]
fn a_block_is_for_the_address_that_came_and_not_for_the_socket_s_spelling_of_it() {
    for blocked in [0, 1] {
        let (site, places) = on_both("");
        for _ in 0..3 {
            let mut tcp = tls::tcp(places[blocked]);
            drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n"));
            drop(tcp.read_to_end(&mut Vec::new()));
        }
        let peer = format!("PEER={}", places[blocked].ip());
        site.agent().line("rate-block").is(&["ACTION=rate-block", &peer, "REASON=probe"]);
        assert!(!serves(&site, places[blocked]) && serves(&site, places[1 - blocked]));
    }
}

#[test]
fn a_stranger_who_was_forgotten_while_connected_is_logged_when_others_make_room_for_him() {
    let site = Site::builder().agents(2).start();
    let agent = &site.agents[0];
    let forgotten = tls::connect(agent.address(), &site.authority(), &site.agents[1].credentials);
    let mut came = 0_u16;
    let mut others = |count: u16| {
        for number in came..came + count {
            let [high, low] = number.to_be_bytes();
            let mut tcp = tls::tcp_from(IpAddr::from([127, 1, high, low]), agent.address());
            drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n"));
        }
        came += count;
        let failed = || agent.stderr().matches("ACTION=tls-failure ").count() == usize::from(came);
        eventually("the end of their handshakes", || failed().then_some(()));
    };
    let evictions = || agent.lines("rate-evict").len();
    others(999);
    assert_eq!(evictions(), 0);
    // He has done nothing yet, and goes with a tenth of the table.
    others(1);
    assert_eq!(evictions(), 1);
    others(99);
    assert_eq!(evictions(), 1);
    drop(forgotten);
    eventually("a line about it", || (evictions() == 2).then_some(()));
    agent.lines("rate-evict")[1].is(&["ACTION=rate-evict", "COUNT=1000"]);
}

#[test]
fn an_agent_s_pings_of_itself_do_not_block_the_dispatcher_on_its_host() {
    let site = Site::builder().start();
    let agent = site.agent();
    let port = agent.address().port().to_string();
    for _ in 0..12 {
        let said = agent.command(&["--port", &port, "self-ping"]).exits(0).stdout;
        assert!(said.contains("403 serial mismatch (expected"), "{said}");
    }
    // Nor do connections on which it asks nothing.
    for _ in 0..12 {
        drop(tls::connect(agent.address(), &site.authority(), &agent.credentials));
    }
    // A renewed certificate is in place, and the agent does not know it yet.
    let renewed = pki::reissue(&site.authority(), "agent1", &agent.credentials, 365);
    std::fs::write(agent.root.join("etc/ctrl-exec-agent/agent.crt"), &renewed.cert).unwrap();
    for _ in 0..12 {
        let said = agent.command(&["--port", &port, "self-ping"]).exits(0).stdout;
        assert!(said.contains("403 serial mismatch (expected"), "{said}");
    }
    agent.line_where("serial-reject", |line| line.get("PEER_SERIAL") == Some(&renewed.serial()));
    site.control(&["ping", "agent1"]).exits(0);
    assert!(agent.lines("rate-block").is_empty());
    // Its certificate in anybody else's hands is a stranger's.
    for _ in 0..10 {
        let config = tls::config(&site.authority(), Some(&agent.credentials));
        let tls = tls::handshake(config, tls::tcp_from(IpAddr::from(ELSEWHERE), agent.address())).unwrap();
        assert_eq!(Http::new(tls).post("/ping", "{}").status, 403);
    }
    assert!(!is_served(&site, ELSEWHERE, agent.address()));
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.2", "REASON=volume"]);
}

#[test]
fn a_self_ping_that_is_turned_away_says_what_may_be_the_reason() {
    let site = Site::builder().start();
    let agent = site.agent();
    let port = agent.address().port().to_string();
    let ping = || agent.command(&["--port", &port, "self-ping"]).exits(1).stdout;
    for _ in 0..3 {
        probe(agent);
    }
    agent.line("rate-block");
    let said = ping();
    assert!(
        said.contains("mTLS handshake failed: ") && said.contains("may have blocked 127.0.0.1 ('rate-block'"),
        "{said}"
    );
    let config = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("allowed_ips = 192.0.2.0/24\n{config}")).unwrap();
    agent.reload();
    let said = ping();
    assert!(said.contains("'allowed_ips' leaves out 127.0.0.1, where this comes from"), "{said}");
}
