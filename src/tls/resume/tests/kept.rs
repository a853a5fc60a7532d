//! What is kept between two processes, and what becomes of it.

use rustls::crypto::tls13::OkmBlock;

use super::super::session::Session;
use super::super::store::Sink;
use super::*;
use crate::sys::file;

const FAR_TOO_LARGE: usize = 1024 * 1024;

/// A session as it is kept, of an agent that showed `leaf`.
fn session(leaf: &Identity, obtained: u64) -> Session {
    Session {
        suite: 0x1302,
        psk: OkmBlock::new(&[7; 48]),
        ticket: b"a ticket that can be found".to_vec(),
        lifetime: 3600,
        age_add: 1_000_000,
        obtained,
        proven: obtained,
        chain: vec![leaf.certificate().der().clone()],
    }
}

#[test]
fn a_kept_session_that_is_damaged_is_no_session() {
    let site = Site::new();
    site.call();
    let path = site.kept().remove(0);
    let good = fs::read(&path).unwrap();
    for bad in [&b""[..], &good[1..], &good[..good.len() - 1], &[&good[..], b"x"].concat(), &vec![0; FAR_TOO_LARGE]] {
        file::write_atomic(&path, bad, file::Access::private()).unwrap();
        assert_eq!(site.call().session(), Full);
    }
    assert_eq!(site.call().session(), Resumed);
}

#[test]
fn a_certificate_that_does_not_hold_now_is_not_restored() {
    let site = Site::new();
    let key = key::generate().unwrap();
    let cache = |site: &Site| site.caller().cache.unwrap();
    let now_millis = unix_millis();
    let judged = |leaf: &Identity| {
        cache(&site).put(PEER, &session(leaf, now_millis - 1000)).unwrap();
        cache(&site).take(PEER, now_millis).is_some()
    };
    assert!(judged(&issue(&site.ca, "agent", &key, now())));
    assert!(!judged(&issue(&site.ca, "agent", &key, now() - Duration::days(60))), "expired");
    assert!(!judged(&issue(&site.ca, "agent", &key, now() + Duration::days(2))), "not begun");
    cache(&site).put(PEER, &session(&issue(&site.ca, "agent", &key, now()), now_millis)).unwrap();
    let own_end = u64::try_from(site.identity.certificate().not_after().unix_timestamp()).unwrap() * 1000;
    assert!(cache(&site).take(PEER, own_end).is_none(), "after the end of the own certificate");
}

#[test]
fn of_all_tickets_of_a_connection_one_is_kept() {
    let site = Site::new();
    let call = site.caller().call(PEER);
    meet(&call, &site.agent.config()).unwrap();
    assert_eq!(site.kept().len(), 1);
    let (session, _) = site.caller().cache.unwrap().take(PEER, unix_millis()).unwrap();
    watch::message(b"\x04\x00\x00\x12\x00\x00\x1c\x20\x00\x00\x00\x05\x01n\x00\x04tick\x00\x00");
    watch::psk(b"n", || OkmBlock::new(&[1; 48]));
    call.keeper.unwrap().take(&session);
    assert!(site.kept().is_empty());
}

#[test]
fn a_session_that_is_too_large_to_be_taken_out_again_is_not_kept() {
    let site = Site::new();
    let agent = issue(&site.ca, "agent", &key::generate().unwrap(), now());
    let large = Session { ticket: vec![1; 65_535], ..session(&agent, unix_millis()) };
    assert!(site.caller().cache.unwrap().put(PEER, &large).is_none());
    assert!(site.kept().is_empty());
}

#[test]
fn a_session_whose_parts_do_not_go_together_is_no_session() {
    let site = Site::new();
    let leaf = issue(&site.ca, "agent", &key::generate().unwrap(), now());
    let good = session(&leaf, unix_millis() - 1000);
    let nothing: [fn(&mut Session); 7] = [
        |session| session.suite = 0,
        |session| session.suite = 0xc02c,
        |session| session.ticket.clear(),
        |session| session.chain.clear(),
        |session| session.chain = vec![b"no certificate".to_vec().into()],
        |session| session.lifetime = 0,
        |session| session.obtained = u64::MAX,
    ];
    for harm in nothing {
        let mut session = good.clone();
        harm(&mut session);
        site.caller().cache.unwrap().put(PEER, &session).unwrap();
        assert!(site.caller().cache.unwrap().take(PEER, unix_millis()).is_none(), "{session:?}");
        site.caller().cache.unwrap().put(PEER, &session).unwrap();
        assert_eq!(meet(&site.caller().call(PEER), &site.agent.config()).unwrap().session(), Full);
    }
}

#[test]
fn the_agent_is_told_the_true_age_of_the_ticket() {
    let site = Site::new();
    let session = session(&issue(&site.ca, "agent", &key::generate().unwrap(), now()), unix_millis() - 5000);
    let caller = site.caller();
    caller.cache.as_ref().unwrap().put(PEER, &session).unwrap();
    let mut client = ClientConnection::new(Arc::clone(caller.call(PEER).config()), any_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let found = hello.windows(session.ticket.len()).position(|window| window == session.ticket).unwrap();
    let age = hello[found + session.ticket.len()..].first_chunk::<4>().unwrap();
    let age = u32::from_be_bytes(*age) - session.age_add;
    assert!((5000..65_000).contains(&age), "{age}");
}

#[test]
fn a_full_handshake_is_asked_for_twelve_hours_after_the_last() {
    let site = Site::new();
    site.call();
    site.call();
    let cache = site.caller().cache.unwrap();
    let (_, proven) = cache.take(PEER, unix_millis()).unwrap();
    assert!(proven <= unix_millis() && unix_millis() - proven < 60_000);
    let old = unix_millis() - 12 * 3_600_000;
    let agent = issue(&site.ca, "agent", &key::generate().unwrap(), now());
    let session = Session { proven: old, ..session(&agent, unix_millis() - 1000) };
    cache.put(PEER, &session).unwrap();
    assert!(cache.take(PEER, unix_millis()).is_none());
}

#[test]
fn a_peer_that_does_not_speak_http_2_leaves_no_session() {
    let site = Site::new();
    let mut server = ServerConfig::clone(&site.agent.config());
    server.alpn_protocols.clear();
    let met = meet(&site.caller().call(PEER), &Arc::new(server)).unwrap();
    assert_eq!((met.client.alpn_protocol(), met.client.tls13_tickets_received()), (None, 1));
    assert!(site.kept().is_empty());
}
