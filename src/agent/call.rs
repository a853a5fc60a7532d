//! What an ordinary run and a job share: a call that was judged, and how it is refused.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hyper::StatusCode;

use super::answer::{self, Answer};
use super::gate::{Asked, TrustedPeer};
use super::metrics::Verdict;
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
    /// When its order was given.
    pub(super) begun: OnceLock<Instant>,
}

/// A reply, and what became of the request that it is for.
pub(super) struct Reply {
    pub(super) body: RunReply,
    pub(super) verdict: Verdict,
}

impl Reply {
    pub(super) fn answer(&self) -> Answer {
        answer::judged(answer::json(StatusCode::OK, &self.body), self.verdict)
    }
}

impl Call {
    pub(super) fn new(agent: &Arc<Agent>, asked: Asked<RunRequest>) -> Self {
        let Asked { peer, snapshot, ask } = asked;
        Self { agent: Arc::clone(agent), peer, snapshot, request: ask, begun: OnceLock::new() }
    }

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
    pub(super) fn refused(&self, refusal: &Refusal) -> Reply {
        let hidden = refusal.code().starts_with("script-not-");
        let text = if hidden { "script not permitted" } else { refusal.text() };
        self.deny(Some(refusal.code()), self.request.refused(refusal.code(), text))
    }

    /// The reply to a run that is not permitted, and the log's line about it.
    pub(super) fn deny(&self, reason: Option<&str>, body: RunReply) -> Reply {
        let line = self.line(Level::Warning, "deny").maybe("REASON", reason);
        self.agent.log().emit(line.maybe("DISPATCHER", reason.map(|_| self.peer.id())));
        Reply { body, verdict: Verdict::Denied }
    }

    /// The same for a request that makes no sense. It has no line.
    pub(super) fn invalid(&self, code: &str, text: &str) -> Reply {
        Reply { body: self.request.refused(code, text), verdict: Verdict::Invalid }
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
