//! `POST /ping`.

use hyper::StatusCode;
use serde_json::Value;

use super::answer::{self, Answer};
use super::gate::TrustedPeer;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::wire::ping::{self, PingReply};

/// Answers with host, version and certificate expiry.
pub fn ping(agent: &Agent, peer: &TrustedPeer, body: &[u8]) -> Answer {
    let snapshot = agent.snapshot();
    let reqid = ping::reqid(body);
    let shown = reqid.as_str().map_or_else(|| reqid.to_string(), str::to_owned);
    let event = Event::new(Level::Info, "ping").field("DISPATCHER", peer.id()).maybe("TRACE", peer.trace());
    agent.log().emit(event.field("PEER", peer.address()).field("REQID", shown));
    let reply = PingReply {
        status: "ok".to_owned(),
        host: snapshot.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        expiry: snapshot.expiry.clone(),
        staged: snapshot.settings.cert_staging_path.exists(),
        session: peer.session(),
        reqid: Value::clone(&reqid),
    };
    answer::json(StatusCode::OK, &reply)
}
