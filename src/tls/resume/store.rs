//! The store that rustls is given: for one connection, whatever its peer is called.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, HandshakeKind, NamedGroup};

use super::cache::Cache;
use super::session::Session;
use super::{unix_millis, watch};
use crate::tls::peer;

/// Room for one session. Of a connection over the network it holds the one that may be resumed, of one in memory the one
/// that came of it.
#[derive(Debug, Default)]
pub(super) struct Store {
    session: Mutex<Option<Tls13ClientSessionValue>>,
    keep: Option<Keep>,
}

/// Where what a peer hands out goes.
#[derive(Debug)]
struct Keep {
    cache: Arc<Cache>,
    peer: String,
    /// When both ends of the session that may be resumed last proved their keys.
    proven: Option<u64>,
    finished: OnceLock<Finished>,
}

/// A finished handshake whose tickets are wanted.
#[derive(Debug)]
struct Finished {
    chain: Vec<CertificateDer<'static>>,
    proven: u64,
}

impl Store {
    /// For a connection to a peer, with what is kept of the last one.
    pub(super) fn for_peer(cache: Arc<Cache>, peer: &str, now: u64) -> Self {
        let (session, proven) = cache.take(peer, now).unzip();
        let keep = Keep { cache, peer: peer.to_owned(), proven, finished: OnceLock::new() };
        Self { session: Mutex::new(session), keep: Some(keep) }
    }

    /// The session, once.
    pub(super) fn take(&self) -> Option<Tls13ClientSessionValue> {
        self.session().take()
    }

    /// The handshake is over; `now` is in milliseconds since 1970.
    pub(super) fn finished(&self, connection: &ClientConnection, now: u64) {
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some(keep) = self.keep.as_ref().filter(|_| peer::is_http_2(connection) && !chain.is_empty()) else {
            return;
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let proven = keep.proven.filter(|_| resumed).unwrap_or(now);
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // A connection has one handshake.
        let _ = keep.finished.set(Finished { chain, proven });
    }

    fn session(&self) -> MutexGuard<'_, Option<Tls13ClientSessionValue>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keep {
    fn ticket(&self, value: &Tls13ClientSessionValue) {
        let (Some((ticket, psk)), Some(finished)) = (watch::take(), self.finished.get()) else { return };
        let session = Session {
            suite: value.suite().common.suite.into(),
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

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        match &self.keep {
            Some(keep) => keep.ticket(&value),
            None => *self.session() = Some(value),
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.take()
    }
}
