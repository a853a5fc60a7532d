//! The agent's session tickets, and the judgement of a client that comes back with one.
//!
//! rustls asks no verifier about a resumed session. So the agent does, with the same verifier, before it reads a request:
//! what holds for a full handshake at this moment holds for a resumed one. Trust and revocation are judged for each
//! request anyway.
//!
//! **Invariant:** the keys of the tickets belong to one configuration and are nowhere but in this process's memory. One
//! that is made at a reload, possibly with another CA or another certificate, opens no ticket of the one before.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::UnixTime;
use rustls::server::ProducesTickets;
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

use super::verify::CaVerifier;
use crate::pki::chain::Usage;

/// How long clients are told to keep a ticket, in seconds. The keys live for six hours, and open old ones for as long.
const LIFETIME: u32 = 3600;

/// The agent's end of each connection.
#[derive(Clone, Debug)]
pub struct AgentEnd {
    config: Arc<ServerConfig>,
    verifier: Arc<CaVerifier>,
}

impl AgentEnd {
    pub(super) const fn new(config: Arc<ServerConfig>, verifier: Arc<CaVerifier>) -> Self {
        Self { config, verifier }
    }

    /// For the next handshakes.
    #[must_use]
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Judges the client of a finished handshake as of now, if the handshake has left that out: the session was resumed.
    ///
    /// # Errors
    /// As the verifier of a full handshake; the connection must then end.
    pub fn judge_resumed(&self, connection: &ServerConnection, now: UnixTime) -> Result<(), Error> {
        if connection.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        let shown = connection.peer_certificates().and_then(<[_]>::first);
        self.verifier.judge(shown.ok_or(Error::NoCertificatesPresented)?, Usage::Client, now)
    }
}

/// Makes `config` hand out tickets: one a connection, for TLS 1.3 alone, without early data.
///
/// # Errors
/// No random bytes for the keys.
pub(super) fn enable(config: &mut ServerConfig) -> Result<(), Error> {
    config.ticketer = Arc::new(Tickets(Ticketer::new()?));
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(())
}

/// Tickets for TLS 1.3. A resumed session of TLS 1.2 has no key exchange of its own, so that whoever learns the keys of
/// its ticket later can read it; there a client gets an empty ticket, which means none (RFC 5077 3.3).
#[derive(Debug)]
struct Tickets(Arc<dyn ProducesTickets>);

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if is_tls13(session) { self.0.encrypt(session) } else { None }
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket).filter(|session| is_tls13(session))
    }
}

/// Whether rustls' form of a session says TLS 1.3. It begins with a zero where no server name was sent, as none of our own
/// sends one, and the version. Should a later rustls write something else, nobody gets a ticket, and tests say so.
fn is_tls13(session: &[u8]) -> bool {
    let [high, low] = u16::from(ProtocolVersion::TLSv1_3).to_be_bytes();
    session.starts_with(&[0, high, low])
}
