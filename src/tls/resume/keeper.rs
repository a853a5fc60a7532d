//! From a connection's ticket to the session that is kept: one a connection, however many a peer hands out.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Tls13ClientSessionValue;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, HandshakeKind};

use super::cache::Cache;
use super::session::Session;
use super::store::Sink;
use super::{unix_millis, watch};
use crate::tls::peer;

/// Keeps the first ticket of one connection.
#[derive(Debug)]
pub(super) struct Keeper {
    cache: Arc<Cache>,
    peer: String,
    /// When both ends of the session that may be resumed last proved their keys, in milliseconds since 1970.
    proven: Option<u64>,
    finished: Mutex<Option<Finished>>,
}

/// A finished handshake whose ticket is wanted.
#[derive(Debug)]
struct Finished {
    chain: Vec<CertificateDer<'static>>,
    proven: u64,
}

impl Keeper {
    pub(super) fn new(cache: Arc<Cache>, peer: &str, proven: Option<u64>) -> Arc<Self> {
        Arc::new(Self { cache, peer: peer.to_owned(), proven, finished: Mutex::default() })
    }

    /// The handshake is over; `now` is in milliseconds since 1970.
    pub(super) fn finished(&self, connection: &ClientConnection, now: u64) {
        let chain = connection.peer_certificates().unwrap_or_default();
        if !peer::is_http_2(connection) || chain.is_empty() {
            return;
        }
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let proven = if resumed { self.proven } else { Some(now) };
        self.expect(proven.map(|proven| Finished { chain, proven }));
    }

    /// Puts in what the next ticket belongs to, and takes out what was there.
    fn expect(&self, next: Option<Finished>) -> Option<Finished> {
        std::mem::replace(&mut self.finished.lock().unwrap_or_else(PoisonError::into_inner), next)
    }
}

impl Sink for Keeper {
    fn take(&self, session: &Tls13ClientSessionValue) {
        let (Some((ticket, psk)), Some(finished)) = (watch::take(), self.expect(None)) else { return };
        let session = Session {
            suite: session.suite().common.suite.into(),
            psk,
            ticket: ticket.ticket,
            lifetime: ticket.lifetime,
            age_add: ticket.age_add,
            obtained: unix_millis(),
            proven: finished.proven,
            chain: finished.chain,
        };
        // Without it the next process makes a full handshake.
        let _ = self.cache.put(&self.peer, &session);
    }
}
