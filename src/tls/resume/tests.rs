//! Processes that come after each other, each a [`Caller`] of its own, over one cache; the agent's end is the real one.

use std::fs;
use std::path::PathBuf;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS12;
use rustls::{ConnectionCommon, Error, NamedGroup, ServerConfig, ServerConnection, SideData, SupportedCipherSuite};
use time::Duration;

use super::own::OwnKey;
use super::*;
use crate::pki::ca::Ca;
use crate::pki::key::{self, PrivateKey};
use crate::tls::provider::provider;
use crate::tls::testing::{Clock, issue, new_ca, now, own};
use crate::tls::{AgentEnd, agent_end, any_name, peer};
use crate::wire::ping::Session::{Full, Resumed};

mod kept;

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
fn the_agent_judges_the_client_of_every_handshake_by_what_is_in_force_now() {
    let site = Site::new();
    let at = |moment: time::OffsetDateTime| {
        let seconds = u64::try_from(moment.unix_timestamp()).unwrap();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let after = at(site.identity.certificate().not_after() + Duration::SECOND);
    let other = new_ca(now());
    let reloaded = agent_end(own(&other, "agent"), other.anchor()).unwrap();
    for expected in [Full, Resumed] {
        let met = site.call();
        assert_eq!(met.session(), expected);
        site.agent.judge(&met.server, at(now())).unwrap();
        let said = crate::tls::explain(&site.agent.judge(&met.server, after).unwrap_err());
        assert!(said.contains("it expired on "), "{said}");
        let said = crate::tls::explain(&reloaded.judge(&met.server, at(now())).unwrap_err());
        assert!(said.contains("not signed by this CA"), "{said}");
    }
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
