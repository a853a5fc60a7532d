//! A site's certificates, made for one test.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use time::OffsetDateTime;

use super::identity::{Identity, IdentitySlot};
use crate::pki::ca::{Ca, DEFAULT_NAME};
use crate::pki::chain::TrustAnchor;
use crate::pki::csr::{self, ExpectedName};
use crate::pki::key::{self, PrivateKey};
use crate::pki::serial;
use crate::wire::name::AgentName;

pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn new_ca(at: OffsetDateTime) -> Ca {
    Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), at).unwrap()
}

pub(crate) fn issue(ca: &Ca, name: &str, key: &PrivateKey, at: OffsetDateTime) -> Identity {
    let request = csr::make(key, &AgentName::parse(name).unwrap()).unwrap();
    let request = csr::check(&request, ExpectedName::Any).unwrap();
    let certificate = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, at).unwrap();
    Identity::load(&certificate.to_pem(), &key.to_pem()).unwrap()
}

/// A certificate of this CA with a key of its own.
pub(crate) fn own(ca: &Ca, name: &str) -> Arc<IdentitySlot> {
    IdentitySlot::new(issue(ca, name, &key::generate().unwrap(), now()))
}

/// The configuration of [`agent_end`](super::agent_end) alone.
pub(crate) fn agent_server(identity: Arc<IdentitySlot>, ca: &TrustAnchor) -> Arc<ServerConfig> {
    super::agent_end(identity, ca).unwrap().config()
}

/// A clock that goes on when it is told to.
#[derive(Debug)]
pub(crate) struct Clock(AtomicI64);

impl Clock {
    /// It begins with the true time.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(now().unix_timestamp())))
    }

    pub(crate) fn pass(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.load(Ordering::Relaxed)).unwrap();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}
