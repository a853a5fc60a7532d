//! Who may ask. One function judges each request's peer, and only it makes a [`TrustedPeer`]; every verb takes one.
//!
//! **Invariant:** everything is judged for each request against the snapshot of that moment, never once for a connection:
//! a serial that was revoked or retired loses an open connection's next request too, and so does an address that is not
//! allowed any more, and a certificate of a CA that is not this agent's any more.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use rustls::pki_types::UnixTime;

use super::answer::{self, Answer};
use super::metrics::Verdict;
use super::snapshot::Snapshot;
use crate::audit::{Event, Level, Logger};
use crate::conf::agent::Settings;
use crate::pki::revoked::RevocationList;
use crate::pki::trust::TrustMap;
use crate::tls::{self, Proof};
use crate::wire::name::{DispatcherId, RequestId};
use crate::wire::ping::Session;
use crate::wire::serial::Serial;
use crate::wire::trace::TraceParent;

/// A peer whose certificate the CA signed. Nothing more is known of it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: IpAddr,
    /// That it has a certificate, and of which CA.
    pub proof: Arc<Proof>,
    /// Serial of its certificate.
    pub serial: Serial,
    /// How the session of its connection came about.
    pub session: Session,
}

/// A dispatcher that this agent was paired with.
#[derive(Clone, Debug)]
pub struct TrustedPeer {
    address: IpAddr,
    serial: Serial,
    id: DispatcherId,
    trace: Option<TraceParent>,
    session: Session,
}

impl TrustedPeer {
    /// The same peer, with the trace that its request is part of.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace;
        self
    }

    /// The trace that its request is part of, if it said so.
    #[must_use]
    pub const fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// How the session of its connection came about.
    #[must_use]
    pub const fn session(&self) -> Session {
        self.session
    }

    /// Where it connected from.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Serial of its certificate.
    #[must_use]
    pub const fn serial(&self) -> &Serial {
        &self.serial
    }

    /// Its stable id: the key of policy, attribution and ownership.
    #[must_use]
    pub const fn id(&self) -> &DispatcherId {
        &self.id
    }
}

/// Why a peer is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Its address is not allowed any more.
    Address,
    /// Its certificate does not hold under the CA of this moment, for this reason.
    Certificate(String),
    /// The serial of its certificate.
    Serial(Rejection),
}

/// Why a serial is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is on the revocation list.
    Revoked,
    /// It is not in the trust map.
    Unknown,
    /// The trust map is empty: this agent trusts nobody.
    NobodyTrusted,
}

/// Judges a peer: address, certificate, revocation, trust.
pub fn judge(peer: &Peer, snapshot: &Snapshot, now: UnixTime) -> Result<TrustedPeer, Distrust> {
    if !admits(&snapshot.settings, peer.address) {
        return Err(Distrust::Address);
    }
    snapshot.tls.still(&peer.proof, now).map_err(|error| Distrust::Certificate(tls::explain(&error)))?;
    let id = judge_serial(&peer.serial, &snapshot.revoked, &snapshot.trust).map_err(Distrust::Serial)?;
    let (serial, id) = (peer.serial.clone(), id.clone());
    Ok(TrustedPeer { address: peer.address, serial, id, trace: None, session: peer.session })
}

/// Judges a serial alone: revocation, then trust.
pub fn judge_serial<'a>(
    serial: &Serial,
    revoked: &RevocationList,
    trust: &'a TrustMap,
) -> Result<&'a DispatcherId, Rejection> {
    if revoked.contains(serial) {
        return Err(Rejection::Revoked);
    }
    trust.get(serial).ok_or(if trust.is_empty() { Rejection::NobodyTrusted } else { Rejection::Unknown })
}

/// Whether anybody may connect from this address.
#[must_use]
pub fn admits(settings: &Settings, peer: IpAddr) -> bool {
    settings.allowed_ips.as_ref().is_none_or(|allowed| allowed.allows(peer))
}

impl Distrust {
    /// A 403 and its log line; for a serial the documented ones.
    #[must_use]
    pub fn answer(&self, peer: &Peer, path: &str, log: &Logger) -> Answer {
        let event = match self {
            Self::Serial(rejection) => return rejection.answer(peer, path, log),
            Self::Address => Event::new(Level::Warning, "ip-block").field("PEER", peer.address),
            Self::Certificate(reason) => {
                Event::new(Level::Warning, "tls-failure").field("PEER", peer.address).field("REASON", reason)
            }
        };
        log.emit(event);
        answer::judged(answer::error(StatusCode::FORBIDDEN, "forbidden"), Verdict::Untrusted)
    }
}

impl Rejection {
    /// The documented 403 and its log line; `path` decides between the two documented forms.
    fn answer(self, peer: &Peer, path: &str, log: &Logger) -> Answer {
        let verdict = if self == Self::Revoked { Verdict::Revoked } else { Verdict::Untrusted };
        answer::judged(self.told(peer, path, log), verdict)
    }

    fn told(self, peer: &Peer, path: &str, log: &Logger) -> Answer {
        if self == Self::Revoked {
            let event = Event::new(Level::Warning, "revoked-cert");
            log.emit(event.field("PEER", peer.address).field("SERIAL", &peer.serial));
            return answer::error(StatusCode::FORBIDDEN, "certificate revoked");
        }
        if path == "/capabilities" {
            let reason = if self == Self::NobodyTrusted { "no trusted dispatchers stored" } else { "serial-mismatch" };
            let event = Event::new(Level::Warning, "capabilities-deny").field("PEER", peer.address);
            log.emit(event.field("PEER_SERIAL", &peer.serial).field("REASON", reason));
            return answer::error(StatusCode::FORBIDDEN, "forbidden");
        }
        let event = Event::new(Level::Warning, "serial-reject").field("PEER", peer.address);
        // As in the original, only a question for a result names its request in its path.
        let asked = path.strip_prefix("/result/").and_then(|id| RequestId::parse(id).ok());
        let reqid = asked.as_ref().map_or("(none)", RequestId::as_str);
        log.emit(event.field("PEER_SERIAL", &peer.serial).field("REQID", reqid));
        let body = serde_json::json!({ "error": "serial mismatch", "status": "forbidden" });
        answer::json(StatusCode::FORBIDDEN, &body)
    }
}
