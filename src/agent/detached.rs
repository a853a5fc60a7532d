//! A detached job: on record, given to the executor, and from then on nobody's to lose.
//!
//! The order of steps is what makes it so: the record and the job's files; the order, with the locks; the answer. A
//! caller that goes away in between changes nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::answer::{self, Answer};
use super::call::{Call, Reply};
use super::follow::{self, Followed};
use super::jobs::{self, Part, store_failed};
use super::metrics::Verdict;
use super::order::{self, OrderError};
use super::stream::Reader;
use super::under_way::Place;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::jobs::{JobStatus, Jobs, Key, NewJob, Submission};
use crate::sys::{clock, memory};
use crate::wire::causes;
use crate::wire::order::Order;
use crate::wire::outcome::{OUTCOME_UNKNOWN, Outcome};
use crate::wire::run::RunReply;

/// How long a job of which nothing was heard may keep its lock, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

/// Submits a job. The answer is 202; or, where the caller asked for a stream, what the job prints, and at last its
/// record. A caller that goes away then leaves the job alone.
pub(super) async fn submit(call: Call, order: Order, reader: Option<Reader>, place: Place) -> Answer {
    let agent = Arc::clone(&call.agent);
    let store = jobs::store(&agent, &call.snapshot);
    let key = Key { owner: call.peer.id().clone(), id: order.request().clone() };
    let trace = call.peer.trace().cloned();
    let submission = Step { call, store: store.clone(), key: key.clone(), order };
    // A task of its own: once begun, it is not for the caller to interrupt.
    let submitted = tokio::spawn(submission.take()).await;
    agent.tidy.notify_one();
    match (submitted, reader) {
        (Ok(Ok(_)), Some(reader)) => {
            let followed = Followed { agent, store, key, parts: Part::both(), trace, place };
            follow::answer(followed, reader)
        }
        (Ok(Ok(accepted) | Err(accepted)), _) => accepted,
        // A panic, which aborts what ships.
        (Err(_), _) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, "could not start async job"),
    }
}

/// A submission on its way.
struct Step {
    call: Call,
    store: Jobs,
    key: Key,
    order: Order,
}

/// The answer to a job that was accepted, or to one that was not.
type Taken = Result<Answer, Answer>;

impl Step {
    async fn take(self) -> Taken {
        let (key, script) = (self.key.clone(), self.order.script().clone());
        let submitted = jobs::work(&self.store, move |jobs| jobs.submit(&key, &script, clock::now())).await;
        match submitted {
            Ok(Submission::Accepted(job)) => self.give(job).await,
            Ok(Submission::Busy) => Err(self.busy("script-already-running", "script already running")),
            Ok(Submission::InUse) => Err(self.busy("reqid-in-use", "a job of this request id is running")),
            Err(error) => Err(self.store_failed(&error)),
        }
    }

    async fn give(self, job: NewJob) -> Taken {
        // By which it is known, should nothing come of it.
        let stdout = job.stdout.try_clone();
        match self.order(job).await {
            Ok(Some(Outcome::Refused(refusal))) => {
                let reply = self.call.refused(&refusal);
                Err(self.discard(stdout, &reply).await)
            }
            // Running; or ended already, which its record will tell.
            Ok(_) => Ok(self.accepted()),
            Err(error @ OrderError::Unreachable(_)) => {
                let reply = self.failed(&error);
                Err(self.discard(stdout, &reply).await)
            }
            Err(error) => self.unheard(&error).await,
        }
    }

    /// Gives the order and waits until the script runs. Our copies of the job's files are closed by then.
    async fn order(&self, job: NewJob) -> Result<Option<Outcome>, OrderError> {
        let stdin = memory::sealed(&self.call.context()).map_err(OrderError::Unreachable)?;
        let NewJob { stdout, stderr, status, lock, cancel } = job;
        let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), status.as_fd(), lock.as_fd(), cancel.as_fd()];
        match order::begin(self.call.agent.orders(), &self.order, &descriptors).await? {
            Ok(running) => running.heard().map(|_| None),
            Err(outcome) => Ok(Some(outcome)),
        }
    }

    /// The order was given, and the connection broke before anything was heard of it. A monitor keeps its connection as
    /// long as it lives, so there is none, or it has ended by now. A lock that is still held is no sign of life: the
    /// kernel tells of a connection's end a moment before it closes the descriptors that nobody has taken from it, and the executor
    /// holds the locks of a monitor that was killed until nobody of its run is left.
    async fn unheard(self, error: &OrderError) -> Taken {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let key = self.key.clone();
            let found = jobs::work(&self.store, move |jobs| jobs.look(&key, clock::now())).await;
            let status = match found {
                Ok(record) => record.map(|record| record.status),
                Err(error) => return Err(self.store_failed(&error)),
            };
            match status {
                Some(JobStatus::Running) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                // Against all expectation it does run, or takes its time to be gone: its end will be told like any other's.
                Some(JobStatus::Running | JobStatus::Done) => return Ok(self.accepted()),
                Some(JobStatus::Lost) | None => return Err(self.failed(error).answer()),
            }
        }
    }

    /// Takes the record back: nothing has run.
    async fn discard(&self, stdout: io::Result<File>, reply: &Reply) -> Answer {
        let key = self.key.clone();
        // Without it, the record says one day that nobody knows how the job ended.
        let Ok(stdout) = stdout else { return reply.answer() };
        if let Err(error) = jobs::work(&self.store, move |jobs| jobs.discard(&key, &stdout)).await {
            store_failed(&self.call.agent, &self.key, self.call.peer.trace(), &error);
        }
        reply.answer()
    }

    fn accepted(&self) -> Answer {
        let line = self.call.line(Level::Info, "run-async");
        self.call.agent.log().emit(line.field("DISPATCHER", self.call.peer.id()));
        answer::json(StatusCode::ACCEPTED, &self.call.request.accepted())
    }

    fn busy(&self, code: &'static str, text: &str) -> Answer {
        self.call.agent.log().emit(self.call.line(Level::Warning, "run-async-busy"));
        answer::json(StatusCode::CONFLICT, &self.call.request.busy(code, text))
    }

    fn store_failed(&self, error: &StoreError) -> Answer {
        store_failed(&self.call.agent, &self.key, self.call.peer.trace(), error);
        let text = if error.is_full() {
            "could not start async job: the agent has no room left for its files"
        } else {
            "could not start async job"
        };
        let body = self.call.request.refused("store-failed", text);
        Reply { body, verdict: Verdict::Failed }.answer()
    }

    fn failed(&self, error: &OrderError) -> Reply {
        let text = causes::on_one_line(error);
        let event = Event::new(Level::Error, "async-store-fail").field("ERROR", &text);
        self.call.agent.log().emit(event.field("REQID", &self.key.id).maybe("TRACE", self.call.peer.trace()));
        let text = format!("could not start async job: {text}");
        let body = if error.is_outcome_unknown() {
            RunReply { unknown: true, ..self.call.request.refused(OUTCOME_UNKNOWN, text) }
        } else {
            self.call.request.refused("executor-failed", text)
        };
        Reply { body, verdict: Verdict::Failed }
    }
}
