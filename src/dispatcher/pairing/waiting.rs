//! A request's place in the queue, from its first entry to the operator's answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::shared::{Notice, Rejection, Shared};
use crate::audit::{Event, Level};
use crate::pki::ca::DISPATCHER_CN;
use crate::pki::csr::{self, ExpectedName};
use crate::store::queue::{Answer, Approval, Form, QueuedRequest};
use crate::sys::{clock, host, random};
use crate::wire::causes;
use crate::wire::name::RequestId;
use crate::wire::pair::Applicant;
use crate::wire::stamp;

/// How often a connection looks for its answer.
const LOOK: Duration = Duration::from_millis(100);
/// Longest time that the resolver may take.
const RESOLVER: Duration = Duration::from_secs(2);
/// Longest explanation taken from an agent, in bytes.
const DETAIL: usize = 500;
/// What waiting agents hear when the session ends.
pub(super) const ENDED: &str = "pairing mode ended";

/// A request in the queue.
///
/// **Invariant:** when it is dropped, however that comes, the request and its answer leave the queue: no request
/// outlives its connection.
pub(super) struct Place {
    shared: Arc<Shared>,
    peer: IpAddr,
    request: QueuedRequest,
}

/// How the wait ended.
pub(super) enum Fate<T> {
    /// The operator's yes.
    Approved(Box<Approval>),
    /// The operator's no.
    Denied(String),
    /// The session is over.
    Ended,
    /// Something happened on the connection itself.
    Interrupted(T),
}

/// What an exchange found out about a request.
pub(super) struct Entry {
    pub(super) applicant: Applicant,
    pub(super) nonce: String,
    pub(super) code: String,
    pub(super) form: Form,
}

/// Judges the certificate request: its key, its signature, and that it asks for the name it comes with.
pub(super) fn judge(applicant: &Applicant) -> Result<(), Rejection> {
    if applicant.hostname.as_str().eq_ignore_ascii_case(DISPATCHER_CN) {
        let text = format!("invalid hostname: '{DISPATCHER_CN}' is the name of dispatchers, not of agents");
        return Err(Rejection::new("invalid-hostname", text).of(&applicant.hostname));
    }
    let expected = ExpectedName::Exactly(applicant.hostname.as_str());
    let judged = csr::check(&applicant.csr, expected);
    judged.map(drop).map_err(|error| Rejection::new("csr", error.to_string()).of(&applicant.hostname))
}

impl Place {
    /// Takes a place in the queue.
    pub(super) async fn take(shared: &Arc<Shared>, peer: IpAddr, entry: Entry) -> Result<Self, Rejection> {
        let agent = entry.applicant.hostname.clone();
        let broken =
            |_| Rejection::new("queue-error", "the dispatcher cannot queue requests: its log says why").of(&agent);
        let id = RequestId::from_random(random::bytes().map_err(|error| broken(error.to_string()))?);
        let work = {
            let shared = Arc::clone(shared);
            // The place is made where the request is queued, so that nobody who stops waiting for this leaves it behind.
            move || queue(&shared, peer, entry, id).map(|queued| queued.map(|request| Self { shared, peer, request }))
        };
        match spawn_blocking(work).await.map_err(|error| broken(error.to_string()))? {
            Ok(Some(place)) => {
                place.announce();
                Ok(place)
            }
            Ok(None) => Err(Rejection::new("queue-full", "pairing queue full").of(&agent)),
            Err(error) => {
                let event = Event::new(Level::Error, "pair-queue-error").field("AGENT", &agent);
                shared.log.emit(event.field("ERROR", causes::on_one_line(&error)));
                Err(broken(String::new()))
            }
        }
    }

    fn announce(&self) {
        let request = &self.request;
        let event = Event::new(Level::Info, "pair-request")
            .field("AGENT", &request.hostname)
            .field("IP", self.peer)
            .field("REQID", &request.id)
            .field("STATUS", "pending");
        let event = event.maybe("REPORTED_IP", (request.ip != self.peer).then_some(request.ip));
        self.shared.log.emit(event.maybe("FORM", (request.form == Form::Original).then_some("original")));
        self.shared.notify(Notice::Queued(Box::new(request.clone())));
    }

    /// The request's id.
    pub(super) const fn id(&self) -> &RequestId {
        &self.request.id
    }

    /// Waits for the operator, the end of the session, or `interruption`.
    pub(super) async fn fate<T>(&self, interruption: impl Future<Output = T>) -> Fate<T> {
        tokio::pin!(interruption);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.shared.ended() => return Fate::Ended,
                happened = &mut interruption => return Fate::Interrupted(happened),
                _ = look.tick() => {}
            }
            match self.look().await {
                Some(Answer::Approved(approval)) => return Fate::Approved(approval),
                Some(Answer::Denied(reason)) => return Fate::Denied(reason),
                None => {}
            }
        }
    }

    /// An answer that cannot be read is no answer; the operator is told in the log.
    async fn look(&self) -> Option<Answer> {
        let (queue, id) = (self.shared.queue.clone(), self.request.id.clone());
        match spawn_blocking(move || queue.answered(&id)).await.ok()? {
            Ok(answer) => answer,
            Err(error) => {
                let event = Event::new(Level::Error, "pair-queue-error").field("REQID", &self.request.id);
                self.shared.log.emit(event.field("ERROR", causes::on_one_line(&error)));
                None
            }
        }
    }

    /// Writes the registry record of an agent that has its certificate.
    pub(super) async fn register(&self, approval: Approval) -> bool {
        let (registry, record) = (self.shared.registry.clone(), approval.record);
        let done = spawn_blocking(move || registry.register(&record).map(|previous| (record, previous))).await;
        let agent = &self.request.hostname;
        match done {
            Ok(Ok((record, previous))) => {
                let event = Event::new(Level::Info, "pair-registered").field("AGENT", agent);
                let event = event.field("REQID", &self.request.id);
                self.shared.log.emit(event.maybe("REPLACED", previous.as_ref().map(|_| "yes")));
                self.shared.notify(Notice::Registered(Box::new(record), previous.map(Box::new)));
                true
            }
            Ok(Err(error)) => self.not_registered(&causes::on_one_line(&error)),
            Err(error) => self.not_registered(&error.to_string()),
        }
    }

    fn not_registered(&self, why: &str) -> bool {
        let event = Event::new(Level::Error, "pair-register-error").field("AGENT", &self.request.hostname);
        self.shared.log.emit(event.field("REQID", &self.request.id).field("ERROR", why));
        self.over("it could not be registered: the log says why");
        false
    }

    /// The agent went away, or took it back.
    pub(super) fn lost(&self, reason: &str, detail: &str) {
        let detail = detail.get(..detail.floor_char_boundary(DETAIL)).unwrap_or_default();
        let agent = self.request.hostname.as_str();
        let event = Event::new(Level::Info, "pair-reject").field("IP", self.peer).field("REASON", reason);
        let event = event.field("AGENT", agent).field("REQID", &self.request.id);
        self.shared.log.emit(event.maybe("DETAIL", (!detail.is_empty()).then_some(detail)));
        self.over(if detail.is_empty() { "the agent left" } else { detail });
    }

    fn over(&self, why: &str) {
        self.shared.notify(Notice::Gone(self.request.id.clone(), why.to_owned()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.shared.queue.remove(&self.request.id) {
            let event = Event::new(Level::Error, "pair-queue-error").field("REQID", &self.request.id);
            self.shared.log.emit(event.field("ERROR", causes::on_one_line(&error)));
        }
    }
}

/// Looks the address up and queues the request. Blocks.
fn queue(
    shared: &Shared,
    peer: IpAddr,
    entry: Entry,
    id: RequestId,
) -> Result<Option<QueuedRequest>, crate::store::StoreError> {
    let reverse = host::reverse(peer, RESOLVER);
    let Applicant { hostname, csr, lookup_by, port, ip } = entry.applicant;
    let request = QueuedRequest {
        id,
        hostname,
        ip: ip.unwrap_or(peer),
        source_ip: peer,
        csr,
        nonce: entry.nonce,
        lookup_by,
        port,
        received: stamp::utc(clock::unix_now()),
        code: entry.code,
        reverse_dns: reverse.name,
        reverse_confirmed: u8::from(reverse.confirmed),
        form: entry.form,
    };
    shared.queue.remove_stale()?;
    Ok(shared.queue.add(&request, shared.max_queue)?.then_some(request))
}
