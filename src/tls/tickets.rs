//! The agent's session tickets, and the judgement of a client that comes back with one.
//!
//! rustls asks no verifier about a resumed session. So the agent does, whatever the handshake was and before it reads a
//! request: the client's certificate holds now, under the CA that is in force now. Trust and revocation are judged for
//! each request anyway; and a connection that is kept beyond a reload is held against another CA as soon as there is one
//! ([`AgentEnd::still`]).
//!
//! Nor does rustls ask how old a ticket is, and each resumption brings a new one. So each says when it was made and when the
//! keys were last proved, and one that is too old is none: whoever holds a session without a key does not hold it for long
//! (RFC 8446 4.6.1).
//!
//! **Invariant:** the keys of the tickets belong to one configuration and are nowhere but in this process's memory. One
//! that is made at a reload, possibly with another CA or another certificate, opens no ticket of the one before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ProducesTickets;
use rustls::time_provider::TimeProvider;
use rustls::{Error, ProtocolVersion, ServerConfig, ServerConnection};

use super::verify::CaVerifier;
use crate::pki::chain::Usage;

/// How long a ticket is good for, in seconds. Its keys live for six hours, and open old ones for as long.
const LIFETIME: u32 = 3600;
/// How long one full handshake is good for, in seconds, however often it was resumed.
const PROOF: u64 = 12 * 3600;

/// The agent's end of each connection.
#[derive(Clone, Debug)]
pub struct AgentEnd {
    config: Arc<ServerConfig>,
    verifier: Arc<CaVerifier>,
    keys: Arc<dyn ProducesTickets>,
}

impl AgentEnd {
    /// Makes `config` hand out tickets: one a connection, for TLS 1.3 alone, without early data.
    ///
    /// # Errors
    /// No random bytes for the keys.
    pub(super) fn new(mut config: ServerConfig, verifier: Arc<CaVerifier>) -> Result<Self, Error> {
        config.send_tls13_tickets = 1;
        config.max_early_data_size = 0;
        Ok(Self { config: Arc::new(config), verifier, keys: Ticketer::new()? })
    }

    /// For one connection: what it resumes is what its own ticket goes on from.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::new(Tickets::new(Arc::clone(&self.keys), Arc::clone(&config.time_provider)));
        Arc::new(config)
    }

    /// Judges the client of a finished handshake. A full one that began with this very configuration has done so, and has
    /// left no signature to be computed; one that began before a reload, or was resumed, has not.
    ///
    /// # Errors
    /// As the verifier of a full handshake; the connection must then end.
    pub fn judge(&self, connection: &ServerConnection, now: UnixTime) -> Result<Proof, Error> {
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        self.prove(shown.ok_or(Error::NoCertificatesPresented)?, now)
    }

    /// Judges a client's certificate alone: that it holds says nothing of whoever shows it.
    ///
    /// # Errors
    /// As the verifier of a full handshake.
    pub fn prove(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<Proof, Error> {
        self.verifier.judge(certificate, Usage::Client, now)?;
        Ok(Proof { certificate: certificate.clone().into_owned(), by: Arc::clone(&self.verifier) })
    }

    /// Judges again what was proven when this or an earlier configuration was in force. Under the same CA only time can have
    /// changed anything, and a connection ends with its peer's certificate.
    ///
    /// # Errors
    /// As the verifier of a full handshake.
    pub fn still(&self, proof: &Proof, now: UnixTime) -> Result<(), Error> {
        if Arc::ptr_eq(&self.verifier, &proof.by) || self.verifier.has_the_ca_of(&proof.by) {
            return Ok(());
        }
        self.verifier.judge(&proof.certificate, Usage::Client, now)
    }
}

/// A client's certificate that holds, and under which CA.
#[derive(Debug)]
pub struct Proof {
    certificate: CertificateDer<'static>,
    by: Arc<CaVerifier>,
}

/// The tickets of one connection: the one that it is resumed with, the one that it hands out.
///
/// They are for TLS 1.3. A resumed session of TLS 1.2 has no key exchange of its own, so that whoever learns the keys of
/// its ticket later can read it; there a client gets an empty ticket, which means none (RFC 5077 3.3).
#[derive(Debug)]
struct Tickets {
    keys: Arc<dyn ProducesTickets>,
    time: Arc<dyn TimeProvider>,
    /// When the keys behind the session that is resumed were last proved, in seconds since 1970; the greatest number if none
    /// is.
    proven: AtomicU64,
}

impl Tickets {
    fn new(keys: Arc<dyn ProducesTickets>, time: Arc<dyn TimeProvider>) -> Self {
        Self { keys, time, proven: AtomicU64::new(u64::MAX) }
    }

    fn now(&self) -> Option<u64> {
        self.time.current_time().map(|now| now.as_secs())
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let made = self.now().filter(|_| is_tls13(session))?;
        let proven = made.min(self.proven.load(Ordering::Relaxed));
        self.keys.encrypt(&[&made.to_be_bytes(), &proven.to_be_bytes(), session].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (now, opened) = (self.now()?, self.keys.decrypt(ticket)?);
        let (made, rest) = opened.split_first_chunk()?;
        let (proven, session) = rest.split_first_chunk()?;
        let (made, proven) = (u64::from_be_bytes(*made), u64::from_be_bytes(*proven));
        // One from the future is none either: a clock was put back.
        let young = now.checked_sub(made)? < u64::from(LIFETIME) && now.checked_sub(proven)? < PROOF;
        if !young || !is_tls13(session) {
            return None;
        }
        self.proven.fetch_min(proven, Ordering::Relaxed);
        Some(session.to_vec())
    }
}

/// Whether rustls' form of a session says TLS 1.3. It begins with a zero where no server name was sent, as none of our own
/// sends one, and the version. Should a later rustls write something else, nobody gets a ticket, and tests say so.
fn is_tls13(session: &[u8]) -> bool {
    let [high, low] = u16::from(ProtocolVersion::TLSv1_3).to_be_bytes();
    session.starts_with(&[0, high, low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Clock;

    const SESSION: &[u8] = b"\x00\x03\x04 of TLS 1.3";

    struct Agent {
        keys: Arc<dyn ProducesTickets>,
        clock: Arc<Clock>,
    }

    impl Agent {
        fn new() -> Self {
            Self { keys: Ticketer::new().unwrap(), clock: Clock::new() }
        }

        fn connection(&self) -> Tickets {
            Tickets::new(Arc::clone(&self.keys), Arc::clone(&self.clock) as Arc<_>)
        }

        /// A connection that resumes if it may, and its ticket.
        fn meet(&self, ticket: &[u8]) -> (bool, Vec<u8>) {
            let connection = self.connection();
            let session = connection.decrypt(ticket);
            assert!(session.as_deref().is_none_or(|session| session == SESSION));
            (session.is_some(), connection.encrypt(SESSION).unwrap())
        }
    }

    #[test]
    fn a_ticket_is_good_for_an_hour_and_never_before_it_was_made() {
        let agent = Agent::new();
        let (_, ticket) = agent.meet(b"");
        assert!(agent.meet(&ticket).0);
        agent.clock.pass(3599);
        assert!(agent.meet(&ticket).0);
        agent.clock.pass(1);
        assert!(!agent.meet(&ticket).0);
        let (_, ticket) = agent.meet(b"");
        agent.clock.pass(-1);
        assert!(!agent.meet(&ticket).0);
    }

    #[test]
    fn twelve_hours_after_a_full_handshake_no_ticket_that_goes_back_to_it_is_good() {
        let agent = Agent::new();
        let (_, mut ticket) = agent.meet(b"");
        for half_hours in 1..48 {
            agent.clock.pass(1800);
            let (resumed, next) = agent.meet(&ticket);
            assert_eq!(resumed, half_hours % 24 != 0, "{half_hours}");
            ticket = next;
        }
    }

    #[test]
    fn only_sessions_of_tls_1_3_are_put_into_tickets_and_taken_out() {
        let agent = Agent::new();
        assert!(agent.connection().encrypt(b"\x00\x03\x03 of TLS 1.2").is_none());
        let now = agent.connection().now().unwrap().to_be_bytes();
        let ticket = |session: &[u8]| agent.keys.encrypt(&[&now, &now, session].concat()).unwrap();
        assert!(agent.connection().decrypt(&ticket(SESSION)).is_some());
        assert!(agent.connection().decrypt(&ticket(b"\x00\x03\x03 of TLS 1.2")).is_none());
        assert!(agent.connection().decrypt(&agent.keys.encrypt(SESSION).unwrap()).is_none(), "without its times");
    }
}
