//! Processes that come after each other, each a [`Caller`] of its own, over one cache; the agent's end is the real one.

use std::fs;
use std::path::PathBuf;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS12;
use rustls::{ConnectionCommon, Error, NamedGroup, ServerConfig, ServerConnection, SideData, SupportedCipherSuite};
use time::Duration;

use super::own::OwnKey;
use super::session::Session;
use super::store::Sink;
use super::*;
use crate::pki::ca::Ca;
use crate::pki::key::{self, PrivateKey};
use crate::sys::file;
use crate::tls::provider::provider;
use crate::tls::testing::{Clock, issue, new_ca, now, own};
use crate::tls::{AgentEnd, agent_end, any_name, peer};
use crate::wire::ping::Session::{Full, Resumed};

const PEER: &str = "192.0.2.1:7443";

/// A CA, a dispatcher with a cache, an agent.
struct Site {
    ca: Ca,
    key: PrivateKey,
    identity: Identity,
    agent: AgentEnd,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let (ca, key) = (new_ca(now()), key::generate().unwrap());
        let identity = issue(&ca, "dispatcher", &key, now());
        let agent = agent_end(own(&ca, "agent"), ca.anchor()).unwrap();
        Self { ca, key, identity, agent, dir: tempfile::tempdir().unwrap() }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("sessions")
    }

    /// Another process.
    fn caller(&self) -> Caller {
        Caller::with_sessions(self.identity.clone(), self.ca.anchor(), &self.place()).unwrap()
    }

    /// Another process calls the agent.
    fn call(&self) -> Met {
        meet(&self.caller().call(PEER), &self.agent.config()).unwrap()
    }

    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.place()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.file_name().unwrap() != ".swept").collect()
    }

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
}

struct Met {
    client: ClientConnection,
    server: ServerConnection,
}

impl Met {
    fn session(&self) -> crate::wire::ping::Session {
        assert_eq!(peer::session(&self.client), peer::session(&self.server));
        peer::session(&self.client)
    }
}

fn carry<A: SideData, B: SideData>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> bool {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
    }
    !bytes.is_empty()
}

/// As the dispatcher connects: tickets are wanted once the handshake is over.
fn meet(call: &Call, server: &Arc<ServerConfig>) -> Result<Met, Error> {
    let mut client = ClientConnection::new(Arc::clone(call.config()), any_name()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while carry(&mut client, &mut server) {
        server.process_new_packets()?;
        carry(&mut server, &mut client);
        let before = client.is_handshaking();
        client.process_new_packets()?;
        if before && !client.is_handshaking() {
            call.keep(&client);
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(Met { client, server })
}

#[test]
fn the_next_process_resumes_what_the_last_one_was_given() {
    let site = Site::new();
    assert_eq!(site.call().session(), Full);
    for _ in 0..3 {
        let met = site.call();
        assert_eq!(met.session(), Resumed);
        assert_eq!(peer::certificate(&met.client).unwrap().common_name(), Some("agent"));
        assert_eq!(peer::certificate(&met.server).unwrap().common_name(), Some("dispatcher"));
        let secret = |connection| peer::exporter(connection, "EXPORTER-test", b"");
        assert_eq!(secret(&met.client).unwrap(), peer::exporter(&met.server, "EXPORTER-test", b"").unwrap());
    }
}

#[test]
fn a_resumed_session_has_a_key_exchange_of_its_own_and_no_early_data() {
    let site = Site::new();
    site.call();
    let mut met = site.call();
    assert_eq!(met.session(), Resumed);
    assert_eq!(met.client.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert!(met.client.early_data().is_none() && !met.client.is_early_data_accepted());
    assert!(met.server.early_data().is_none());
}

/// An agent of this site that speaks these suites alone.
fn agent(site: &Site, cipher_suites: Vec<SupportedCipherSuite>, time: Option<Arc<Clock>>) -> AgentEnd {
    let only = CryptoProvider { cipher_suites, ..CryptoProvider::clone(&provider()) };
    let builder = ServerConfig::builder_with_provider(Arc::new(only)).with_protocol_versions(config::NEWEST);
    let verifier = crate::tls::verify::CaVerifier::new(site.ca.anchor());
    let builder = builder.unwrap().with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>);
    let mut server = builder.with_cert_resolver(own(&site.ca, "agent"));
    server.alpn_protocols = vec![config::HTTP_2.to_vec()];
    if let Some(time) = time {
        server.time_provider = time;
    }
    AgentEnd::new(server, verifier).unwrap()
}

#[test]
fn an_agent_asks_for_a_full_handshake_twelve_hours_after_the_last() {
    let (site, clock) = (Site::new(), Clock::new());
    let agent = agent(&site, provider().cipher_suites.clone(), Some(Arc::clone(&clock)));
    // As far as the dispatcher knows no time has passed.
    for half_hours in 0..30 {
        let expected = if half_hours % 24 == 0 { Full } else { Resumed };
        assert_eq!(meet(&site.caller().call(PEER), &agent.config()).unwrap().session(), expected, "{half_hours}");
        clock.pass(1800);
    }
    clock.pass(3600);
    assert_eq!(meet(&site.caller().call(PEER), &agent.config()).unwrap().session(), Full, "an old ticket");
}

#[test]
fn every_suite_of_tls_1_3_can_be_resumed() {
    for suite in provider().cipher_suites.iter().filter(|suite| suite.tls13().is_some()) {
        let site = Site::new();
        let server = agent(&site, vec![*suite], None);
        for expected in [Full, Resumed, Resumed] {
            assert_eq!(meet(&site.caller().call(PEER), &server.config()).unwrap().session(), expected, "{suite:?}");
        }
    }
}

#[test]
fn a_ticket_is_used_by_one_of_those_that_call_at_the_same_time() {
    let site = Site::new();
    site.call();
    let (one, other) = (site.caller().call(PEER), site.caller().call(PEER));
    assert_eq!(meet(&one, &site.agent.config()).unwrap().session(), Resumed);
    assert_eq!(meet(&other, &site.agent.config()).unwrap().session(), Full);
    assert_eq!(site.kept().len(), 1);
}

#[test]
fn a_session_is_of_no_use_at_another_address_or_with_another_certificate() {
    let mut site = Site::new();
    site.call();
    let elsewhere = site.caller().call("192.0.2.1:7444");
    assert_eq!(meet(&elsewhere, &site.agent.config()).unwrap().session(), Full);
    site.identity = issue(&site.ca, "dispatcher", &site.key, now());
    assert_eq!((site.call().session(), site.call().session()), (Full, Resumed));
}

#[test]
fn an_agent_that_was_started_again_is_met_with_a_full_handshake() {
    let mut site = Site::new();
    site.call();
    site.agent = agent_end(own(&site.ca, "agent"), site.ca.anchor()).unwrap();
    assert_eq!((site.call().session(), site.call().session()), (Full, Resumed));
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

const FAR_TOO_LARGE: usize = 1024 * 1024;

#[test]
fn a_certificate_that_does_not_hold_now_is_not_restored() {
    let site = Site::new();
    let key = key::generate().unwrap();
    let cache = |site: &Site| site.caller().cache.unwrap();
    let now_millis = unix_millis();
    let judged = |leaf: &Identity| {
        cache(&site).put(PEER, &Site::session(leaf, now_millis - 1000)).unwrap();
        cache(&site).take(PEER, now_millis).is_some()
    };
    assert!(judged(&issue(&site.ca, "agent", &key, now())));
    assert!(!judged(&issue(&site.ca, "agent", &key, now() - Duration::days(60))), "expired");
    assert!(!judged(&issue(&site.ca, "agent", &key, now() + Duration::days(2))), "not begun");
    cache(&site).put(PEER, &Site::session(&issue(&site.ca, "agent", &key, now()), now_millis)).unwrap();
    let own_end = u64::try_from(site.identity.certificate().not_after().unix_timestamp()).unwrap() * 1000;
    assert!(cache(&site).take(PEER, own_end).is_none(), "after the end of the own certificate");
}

#[test]
fn a_session_whose_parts_do_not_go_together_is_no_session() {
    let site = Site::new();
    let leaf = issue(&site.ca, "agent", &key::generate().unwrap(), now());
    let good = Site::session(&leaf, unix_millis() - 1000);
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
    let session = Site::session(&issue(&site.ca, "agent", &key::generate().unwrap(), now()), unix_millis() - 5000);
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
fn a_peer_that_does_not_speak_http_2_leaves_no_session() {
    let site = Site::new();
    let mut server = ServerConfig::clone(&site.agent.config());
    server.alpn_protocols.clear();
    let met = meet(&site.caller().call(PEER), &Arc::new(server)).unwrap();
    assert_eq!((met.client.alpn_protocol(), met.client.tls13_tickets_received()), (None, 1));
    assert!(site.kept().is_empty());
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
    let large = Session { ticket: vec![1; 65_535], ..Site::session(&agent, unix_millis()) };
    assert!(site.caller().cache.unwrap().put(PEER, &large).is_none());
    assert!(site.kept().is_empty());
}

#[test]
fn without_a_place_of_its_own_a_caller_works_and_keeps_nothing() {
    let site = Site::new();
    let absent = site.dir.path().join("none/sessions");
    for _ in 0..2 {
        let caller = Caller::with_sessions(site.identity.clone(), site.ca.anchor(), &absent).unwrap();
        assert_eq!(meet(&caller.call(PEER), &site.agent.config()).unwrap().session(), Full);
    }
    let plain = Caller::new(site.identity.clone(), site.ca.anchor()).unwrap();
    site.call();
    assert_eq!(meet(&plain.call(PEER), &site.agent.config()).unwrap().session(), Full);
    assert_eq!(site.kept().len(), 1);
}

#[test]
fn the_agent_judges_the_client_of_a_resumed_session_anew() {
    let site = Site::new();
    let at = |moment: time::OffsetDateTime| {
        let seconds = u64::try_from(moment.unix_timestamp()).unwrap();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let after = at(site.identity.certificate().not_after() + Duration::SECOND);
    let full = site.call();
    site.agent.judge_resumed(&full.server, after).unwrap();
    let met = site.call();
    assert_eq!(met.session(), Resumed);
    site.agent.judge_resumed(&met.server, at(now())).unwrap();
    let said = crate::tls::explain(&site.agent.judge_resumed(&met.server, after).unwrap_err());
    assert!(said.contains("it expired on "), "{said}");
    let other = new_ca(now());
    let reloaded = agent_end(own(&other, "agent"), other.anchor()).unwrap();
    let said = crate::tls::explain(&reloaded.judge_resumed(&met.server, at(now())).unwrap_err());
    assert!(said.contains("not signed by this CA"), "{said}");
}

#[test]
fn a_client_of_tls_1_2_gets_no_ticket_and_resumes_nothing() {
    let site = Site::new();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS12]).unwrap();
    let verifier = crate::tls::verify::CaVerifier::new(site.ca.anchor());
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut old = builder.with_client_cert_resolver(own(&site.ca, "dispatcher"));
    old.resumption = Resumption::in_memory_sessions(8);
    let call = Call { config: Arc::new(old), keeper: None };
    for _ in 0..3 {
        let met = meet(&call, &site.agent.config()).unwrap();
        assert_eq!(met.session(), Full);
    }
}

/// A server on the network that claims to be the one in memory.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn nobody_else_can_sign_as_the_server_in_memory() {
    let site = Site::new();
    let agent = issue(&site.ca, "agent", &key::generate().unwrap(), now());
    let key = CertifiedKey::new(vec![agent.certificate().der().clone()], Arc::new(OwnKey::generate().unwrap()));
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(config::NEWEST).unwrap();
    let server = builder.with_no_client_auth().with_cert_resolver(Arc::new(Impostor(Arc::new(key))));
    for caller in [site.caller(), Caller::new(site.identity.clone(), site.ca.anchor()).unwrap()] {
        assert!(meet(&caller.call(PEER), &Arc::new(server.clone())).is_err());
    }
}

#[test]
fn what_is_for_this_process_alone_is_offered_to_nobody() {
    let site = Site::new();
    let mut client = ClientConnection::new(Arc::clone(site.caller().call(PEER).config()), any_name()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    let mut acceptor = rustls::server::Acceptor::default();
    acceptor.read_tls(&mut hello.as_slice()).unwrap();
    let accepted = acceptor.accept().unwrap().unwrap();
    let hello = accepted.client_hello();
    let private = |number: u16| number == 0xfe7e;
    assert!(!hello.signature_schemes().iter().any(|scheme| private(u16::from(*scheme))));
    assert!(!hello.named_groups().unwrap().iter().any(|group| private(u16::from(*group))));
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
    let session = Session { proven: old, ..Site::session(&agent, unix_millis() - 1000) };
    cache.put(PEER, &session).unwrap();
    assert!(cache.take(PEER, unix_millis()).is_none());
}
