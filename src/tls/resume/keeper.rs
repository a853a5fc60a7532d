//! From a connection's ticket to the session that is kept.

use std::sync::{Arc, OnceLock};

use rustls::client::Tls13ClientSessionValue;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, HandshakeKind};

use super::cache::Cache;
use super::session::Session;
use super::store::Sink;
use super::{unix_millis, watch};
use crate::tls::peer;

/// Keeps the tickets of one connection.
#[derive(Debug)]
pub(super) struct Keeper {
    cache: Arc<Cache>,
    peer: String,
    /// When both ends of the session that may be resumed last proved their keys, in milliseconds since 1970.
    proven: Option<u64>,
    finished: OnceLock<Finished>,
}

/// A finished handshake whose tickets are wanted.
#[derive(Debug)]
struct Finished {
    chain: Vec<CertificateDer<'static>>,
    proven: u64,
}

impl Keeper {
    pub(super) fn new(cache: Arc<Cache>, peer: &str, proven: Option<u64>) -> Arc<Self> {
        Arc::new(Self { cache, peer: peer.to_owned(), proven, finished: OnceLock::new() })
    }

    /// The handshake is over; `now` is in milliseconds since 1970.
    pub(super) fn finished(&self, connection: &ClientConnection, now: u64) {
        let chain = connection.peer_certificates().unwrap_or_default();
        if !peer::is_http_2(connection) || chain.is_empty() {
            return;
        }
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let proven = self.proven.filter(|_| resumed).unwrap_or(now);
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // A connection has one handshake.
        let _ = self.finished.set(Finished { chain, proven });
    }
}

impl Sink for Keeper {
    fn take(&self, session: &Tls13ClientSessionValue) {
        let (Some((ticket, psk)), Some(finished)) = (watch::take(), self.finished.get()) else { return };
        let session = Session {
            suite: session.suite().common.suite.into(),
            psk,
            ticket: ticket.ticket,
            lifetime: ticket.lifetime,
            age_add: ticket.age_add,
            obtained: unix_millis(),
            proven: finished.proven,
            chain: finished.chain.clone(),
        };
        // Without it the next process makes a full handshake.
        let _ = self.cache.put(&self.peer, &session);
    }
}
