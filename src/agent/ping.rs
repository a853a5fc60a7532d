//! `POST /ping`.

use hyper::StatusCode;
use serde_json::Value;

use super::answer::{self, Answer};
use super::gate::{OfPeer, Passed};
use super::metrics::Verb;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::wire::ping::{self, PingReply};

/// The question: the id that is echoed.
#[derive(Debug)]
pub struct Ping(pub Value);

impl OfPeer for Ping {
    const VERB: Verb = Verb::Ping;
}

/// Reads a request.
#[must_use]
pub fn ask(body: &[u8]) -> Ping {
    Ping(ping::reqid(body))
}

/// Answers with host, version and certificate expiry.
pub fn ping(agent: &Agent, passed: &Passed<Ping>) -> Answer {
    let (peer, snapshot, Ping(reqid)) = (passed.peer(), passed.snapshot(), passed.ask());
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
        reqid: reqid.clone(),
    };
    answer::json(StatusCode::OK, &reply)
}
