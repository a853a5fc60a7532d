//! Strangers at the pairing port who say nothing, or say it a byte at a time.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ctrl_exec::tls::{PairingPeers, pairing_client};

use super::World;
use crate::harness::http::Http;
use crate::harness::tls::Tls;
use crate::harness::{Site, eventually, tls};

/// Longest time until a handshake or an exchange is given up: ten seconds, and a busy machine.
const SHORT: Duration = Duration::from_secs(40);

/// A connection to the pairing port, from an address of its own.
fn applicant(port: SocketAddr, source: u8, own: bool) -> Http<Tls> {
    let mut config = (*pairing_client(PairingPeers::OwnAndOriginal).unwrap()).clone();
    if !own {
        config.alpn_protocols.clear();
    }
    let tcp = tls::tcp_from(IpAddr::from([127, 0, 4, source]), port);
    Http::new(tls::handshake(config, tcp).unwrap())
}

#[test]
fn silence_has_an_end_at_every_stage_of_a_pairing() {
    let world = World::of(Site::builder().dispatcher("pairing_rate_limit_disable = yes").prepare());
    let session = world.session(&[]);
    let port = SocketAddr::from(([127, 0, 0, 1], session.port.parse().unwrap()));
    let started = Instant::now();
    let mut silent = tls::tcp(port);
    let mut half = tls::tcp(port);
    half.write_all(&tls::HALF_A_HELLO).unwrap();
    let mut connections = vec![applicant(port, 1, true), applicant(port, 2, false)];
    let beginnings: [(u8, bool, &[u8]); 3] =
        [(3, true, &[0, 0, 1]), (4, true, b"\0\0\x01\0{"), (5, false, b"POST /pair HTTP/1.0\r\nX: ")];
    for (source, own, begin) in beginnings {
        let mut http = applicant(port, source, own);
        http.send(begin);
        connections.push(http);
    }
    let mut dripping = applicant(port, 6, false);
    dripping.send("POST /pair HTTP/1.0\r\nX: ");
    tls::every_second(&dripping.stream.sock);
    let told = tls::drip(&mut dripping.stream, b'x');
    assert!(String::from_utf8_lossy(&told).contains("request timed out"), "{told:?}");
    for http in &mut connections {
        let told = String::from_utf8_lossy(&http.rest()).into_owned();
        assert!(told.contains("request timed out") || told.contains("took too long"), "{told}");
    }
    let mut rest = Vec::new();
    drop((silent.read_to_end(&mut rest), half.read_to_end(&mut rest)));
    assert!(started.elapsed() < SHORT, "{:?}", started.elapsed());
    for (reason, times) in [("handshake-timeout", 2), ("exchange-timeout", 3), ("request-timeout", 3)] {
        let reason = format!("REASON={reason}");
        let seen = || (session.live.err().matches(&reason).count() == times).then_some(());
        eventually(&format!("{times} times {reason}"), seen);
    }
    session.close();
}

#[test]
fn a_silent_stranger_never_keeps_an_agent_from_pairing() {
    // Once is enough: whoever waits for a stranger waits for one every time, and a busy machine is slow now and then.
    assert!((0..5).any(|_| pairs_in_less_than_a_strangers_deadline()), "an agent has to wait for strangers");
}

fn pairs_in_less_than_a_strangers_deadline() -> bool {
    let world = World::of(Site::builder().dispatcher("pairing_rate_limit_disable = yes").prepare());
    let session = world.session(&[]);
    let port = SocketAddr::from(([127, 0, 0, 1], session.port.parse().unwrap()));
    let silent: Vec<_> = (0..100).map(|number| tls::tcp_from(IpAddr::from([127, 0, 5, number]), port)).collect();
    let own: Vec<_> = (0..8).map(|_| tls::tcp(port)).collect();
    let started = Instant::now();
    world.pair(&session);
    let is_quick = started.elapsed() < Duration::from_secs(8);
    drop((silent, own));
    session.close();
    is_quick
}
