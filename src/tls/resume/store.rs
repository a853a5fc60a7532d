//! The store that rustls is given: for one connection, whatever its peer is called.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;

/// Room for one session. Of a connection over the network it holds the one that may be resumed, of one in memory the one
/// that came of it.
#[derive(Debug, Default)]
pub(super) struct Store {
    session: Mutex<Option<Tls13ClientSessionValue>>,
    sink: Option<Arc<dyn Sink>>,
}

/// Takes what the peer of a connection over the network hands out.
pub(super) trait Sink: fmt::Debug + Send + Sync {
    /// rustls has made a session from a ticket.
    fn take(&self, session: &Tls13ClientSessionValue);
}

impl Store {
    /// For a connection over the network.
    pub(super) fn new(session: Option<Tls13ClientSessionValue>, sink: Arc<dyn Sink>) -> Arc<Self> {
        Arc::new(Self { session: Mutex::new(session), sink: Some(sink) })
    }

    /// The session, once.
    pub(super) fn take(&self) -> Option<Tls13ClientSessionValue> {
        self.session().take()
    }

    /// For a configuration that uses it.
    pub(super) fn resumption(self: &Arc<Self>) -> Resumption {
        Resumption::store(Arc::clone(self) as Arc<_>).tls12_resumption(Tls12Resumption::Disabled)
    }

    fn session(&self) -> MutexGuard<'_, Option<Tls13ClientSessionValue>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
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
        match &self.sink {
            Some(sink) => sink.take(&value),
            None => *self.session() = Some(value),
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.take()
    }
}
