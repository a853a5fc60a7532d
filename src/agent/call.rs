//! What an ordinary run and a job share: a call on its way through the gates, and how it is refused.

use std::sync::Arc;

use super::gate::TrustedPeer;
use super::snapshot::Snapshot;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::sys::clock;
use crate::wire::context::RunContext;
use crate::wire::refusal::Refusal;
use crate::wire::run::{RunReply, RunRequest};
use crate::wire::stamp;

/// A call with everything it needs, so that a streamed answer can take it along.
pub(super) struct Call {
    pub(super) agent: Arc<Agent>,
    pub(super) peer: TrustedPeer,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) request: RunRequest,
}

impl Call {
    /// What the script reads on its standard input.
    pub(super) fn context(&self) -> Vec<u8> {
        let context = RunContext {
            script: self.request.script(),
            args: self.request.args.clone(),
            reqid: self.request.reqid(),
            peer_ip: self.peer.address().to_string(),
            username: self.request.username.clone(),
            token: self.request.token.clone(),
            dispatcher: self.peer.id().to_string(),
            timestamp: stamp::utc(clock::unix_now()),
        };
        serde_json::to_vec(&context).unwrap_or_default()
    }

    /// The executor, or its protocol, refused. Where a script may not run, the caller learns no more than from the
    /// allowlist.
    pub(super) fn refused(&self, refusal: &Refusal) -> RunReply {
        self.deny(Some(refusal.code()));
        let hidden = refusal.code().starts_with("script-not-");
        let text = if hidden { "script not permitted" } else { refusal.text() };
        RunReply { reason: Some(refusal.code().to_owned()), ..self.request.refused(text) }
    }

    /// The log's line about a run that is not permitted.
    pub(super) fn deny(&self, reason: Option<&str>) {
        let line = self.line(Level::Warning, "deny").maybe("REASON", reason);
        self.agent.log().emit(line.maybe("DISPATCHER", reason.map(|_| self.peer.id())));
    }

    /// A line about this call, with what is said in each of them.
    pub(super) fn line(&self, level: Level, action: &'static str) -> Event {
        Event::new(level, action)
            .field("PEER", self.peer.address())
            .field("REQID", self.request.reqid())
            .field("SCRIPT", self.request.script())
            .maybe("TRACE", self.peer.trace())
    }
}
