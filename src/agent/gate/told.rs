//! What is told of a refusal: to the log, to what is counted, and to the peer.

use hyper::StatusCode;

use super::Peer;
use super::verdict::{Refused, Rejection};
use crate::agent::answer::{self, Answer};
use crate::agent::metrics::{Turned, Verdict};
use crate::agent::state::Agent;
use crate::audit::{Event, Level, Logger};
use crate::wire::name::RequestId;
use std::net::IpAddr;

impl Refused {
    /// Of one who is refused before there is a request, and whose connection ends without a word.
    pub fn turn_away(&self, agent: &Agent, peer: IpAddr) {
        match self {
            Self::Address => agent.estranged(peer),
            // The block's beginning has its line where it is counted.
            Self::Rate(_) => agent.metrics.turned_away(Turned::RateBlock),
            Self::Handshake(reason) => agent.failed(peer, reason),
            other => agent.failed(peer, other.code()),
        }
    }

    /// Of one whose request is not read: a 403 and its log line; for a serial the documented ones.
    #[must_use]
    pub fn answer(&self, peer: &Peer, path: &str, log: &Logger) -> Answer {
        let event = match self {
            Self::Serial(rejection) => return rejection.answer(peer, path, log),
            Self::Handshake(reason) => tls_failure(peer).field("REASON", reason),
            Self::Address => Event::new(Level::Warning, "ip-block").field("PEER", peer.address),
            other => tls_failure(peer).field("REASON", other.code()),
        };
        log.emit(event);
        answer::judged(answer::error(StatusCode::FORBIDDEN, "forbidden"), Verdict::Untrusted)
    }
}

fn tls_failure(peer: &Peer) -> Event {
    Event::new(Level::Warning, "tls-failure").field("PEER", peer.address)
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
