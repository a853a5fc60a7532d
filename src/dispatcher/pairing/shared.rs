//! What the connections of one session share, and how they speak of a request.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use crate::audit::{Event, Level, Logger};
use crate::pki::cert::Certificate;
use crate::store::queue::{Queue, QueuedRequest};
use crate::store::record::AgentRecord;
use crate::store::registry::Registry;
use crate::wire::name::RequestId;

/// What the operator wants to hear of while the session lasts.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A request waits.
    Queued(Box<QueuedRequest>),
    /// A request is over without an answer: its agent left, refused, or could not be registered.
    Gone(RequestId, String),
    /// An agent has its certificate and is registered; the record it replaced.
    Registered(Box<AgentRecord>, Option<Box<AgentRecord>>),
}

/// What every connection of a session uses.
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) registry: Registry,
    pub(super) log: Logger,
    /// The CA's certificate.
    pub(super) ca: Certificate,
    /// The certificate that the listener shows.
    pub(super) own: Certificate,
    pub(super) original: bool,
    pub(super) max_queue: usize,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) notices: mpsc::UnboundedSender<Notice>,
    pub(super) admission: Mutex<Admission>,
}

impl Shared {
    /// The budgets. Nothing panics while the lock is held.
    pub(super) fn admit(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the session is over.
    pub(super) async fn ended(&self) {
        let mut closing = self.closing.clone();
        // A sender that is gone has gone with its session.
        drop(closing.wait_for(|closing| *closing).await);
    }

    /// Tells the operator. Nobody may be listening, which is fine.
    pub(super) fn notify(&self, notice: Notice) {
        let _ = self.notices.send(notice);
    }

    /// Logs a request that was not queued, or went away.
    pub(super) fn log_rejection(&self, peer: IpAddr, reason: &str, agent: Option<&str>) {
        let event = Event::new(Level::Info, "pair-reject").field("IP", peer).field("REASON", reason);
        self.log.emit(event.maybe("AGENT", agent));
    }
}

/// The log's word for a connection that gave its place to another.
pub(super) const CROWDED: &str = "too-many-connections";

/// Why a request is not queued: a word for the log, and words for the agent.
#[derive(Debug)]
pub(super) struct Rejection {
    /// `REASON` in the log.
    pub(super) code: &'static str,
    /// What the agent is told.
    pub(super) text: String,
    /// Whose request it was, where that is known.
    pub(super) agent: Option<String>,
}

impl Rejection {
    pub(super) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), agent: None }
    }

    pub(super) fn of(self, agent: &impl ToString) -> Self {
        Self { agent: Some(agent.to_string()), ..self }
    }
}
