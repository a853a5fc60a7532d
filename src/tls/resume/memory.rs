//! A handshake between two ends in this process's memory, from which rustls itself makes the session that was kept.
//!
//! Its server shows the kept certificates and hands out the kept ticket; where the client derives the ticket's secret,
//! [`watch`] gives it the kept one. Nothing of it is secret or leaves the process, so it needs no key exchange, and its
//! server, which has no private key for the certificates, signs with a key that only this process has ([`super::own`]). What
//! the certificates are worth now is judged as ever.

use std::sync::Arc;

use rustls::client::Tls13ClientSessionValue;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, Error, NamedGroup, ServerConfig, ServerConnection, SideData,
    SupportedCipherSuite,
};

use super::super::config::any_name;
use super::super::provider::provider;
use super::ends::Ends;
use super::session::{Left, Session};
use super::store::Store;
use super::suites;
use super::watch::{self, Restored};

/// Its key exchange; of the numbers for private use (RFC 8446 11). It is offered to nobody.
const GROUP: NamedGroup = NamedGroup::Unknown(0xfe7e);
/// Exchanges after which the handshake is over and the ticket handed out: two are needed.
const ROUNDS: usize = 4;

/// Makes the session that rustls would have had, were the process still that in which the ticket came; `None` where
/// that fails, its certificates do not hold now for example.
pub(super) fn restore(session: &Session, left: Left, ends: &Ends) -> Option<Tls13ClientSessionValue> {
    let is_wanted = |suite: &&SupportedCipherSuite| u16::from(suite.suite()) == session.suite;
    let store = Arc::new(Store::default());
    let client = ends.in_memory(provider_of(suites::watched().iter().find(is_wanted)?), &store).ok()?;
    let server = server(provider_of(provider().cipher_suites.iter().find(is_wanted)?), session, left, ends).ok()?;
    let restored = Restored { psk: session.psk.clone(), age_add: session.age_add.wrapping_add(left.age) };
    watch::restoring(restored, || meet(client, server, &store))
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>, store: &Store) -> Option<Tls13ClientSessionValue> {
    let mut client = ClientConnection::new(client, any_name()).ok()?;
    let mut server = ServerConnection::new(server).ok()?;
    for _ in 0..ROUNDS {
        carry(&mut client, &mut server)?;
        server.process_new_packets().ok()?;
        carry(&mut server, &mut client)?;
        client.process_new_packets().ok()?;
        if let Some(session) = store.take() {
            return Some(session);
        }
    }
    None
}

fn carry<A: SideData, B: SideData>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Option<()> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).ok()?;
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        // An end that takes nothing more has no more to say either.
        to.read_tls(&mut rest).ok().filter(|taken| *taken > 0)?;
    }
    Some(())
}

fn provider_of(suite: &SupportedCipherSuite) -> CryptoProvider {
    let (cipher_suites, kx_groups) = (vec![*suite], vec![&NoExchange as &dyn SupportedKxGroup]);
    CryptoProvider { cipher_suites, kx_groups, secure_random: &Random, ..CryptoProvider::clone(&provider()) }
}

fn server(provider: CryptoProvider, session: &Session, left: Left, ends: &Ends) -> Result<Arc<ServerConfig>, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?.with_no_client_auth();
    let key = CertifiedKey::new(session.chain.clone(), Arc::new(ends.verifier().own.clone()));
    let mut config = builder.with_cert_resolver(Arc::new(Shown(Arc::new(key))));
    config.ticketer = Arc::new(Ticket { bytes: session.ticket.clone(), lifetime: left.lifetime });
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Ticket {
    bytes: Vec<u8>,
    lifetime: u32,
}

impl ProducesTickets for Ticket {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.lifetime
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        Some(self.bytes.clone())
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Random bytes as ever, but for the four that hide the ticket's age: rustls takes the restored session for new, and with
/// the true age in them it tells the real server the true age.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        match (bytes.len(), watch::age_add()) {
            (4, Some(age_add)) => bytes.copy_from_slice(&age_add.to_be_bytes()),
            _ => aws_lc_rs::rand::fill(bytes).map_err(|_| GetRandomFailed)?,
        }
        Ok(())
    }
}

#[derive(Debug)]
struct NoExchange;

impl SupportedKxGroup for NoExchange {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        GROUP
    }
}

impl ActiveKeyExchange for NoExchange {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[0; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[0]
    }

    fn group(&self) -> NamedGroup {
        GROUP
    }
}
