//! What `run` and `ping` share: a call to each target, timed and logged, and the results in order.

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::connect::Dialer;
use super::failure::CallError;
use super::fanout;
use super::resolve::Target;
use crate::audit::{Event, Level, Logger};
use crate::wire::limits;
use crate::wire::run::RunCall;

/// What calls to many agents share.
#[derive(Clone)]
pub struct Fleet {
    /// Connections to agents.
    pub dialer: Dialer,
    /// Where each call is logged.
    pub log: Logger,
    /// Most calls under way at once.
    pub most: usize,
}

/// One finished call.
#[derive(Debug)]
pub struct Call {
    /// Whom.
    pub target: Target,
    /// How long, connection and handshake included.
    pub elapsed: Duration,
    /// The agent's answer, or why there is none.
    pub answer: Result<Map<String, Value>, CallError>,
}

impl Call {
    /// The log's line about this call, with what every verb says in it.
    pub(super) fn line(&self, level: Level, action: &'static str, reqid: &str) -> Event {
        let line = Event::new(level, action).field("REQID", reqid).field("RTT", answer::rtt(self.elapsed));
        line.field("TARGET", self.target.label())
    }

    /// The host's result by its answer.
    pub(super) fn answered(&self, fields: &Map<String, Value>) -> HostResult {
        self.timed(HostResult::answered(self.target.name(), fields.clone()))
    }

    /// The host's result where there is no answer.
    pub(super) fn failed<'a>(
        &self,
        error: &CallError,
        fields: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> HostResult {
        let fields = fields.into_iter().map(|(key, value)| (key, Value::from(value)));
        self.timed(HostResult::failed(self.target.name(), error, fields))
    }

    fn timed(&self, mut result: HostResult) -> HostResult {
        result.fields.insert("rtt".to_owned(), answer::rtt(self.elapsed).into());
        result
    }
}

/// Calls every target, at most `most` at a time. `finish` makes the result of each call, in order of completion, and
/// sees it before anybody else: the place for the log line. Results are in the order of the targets.
pub async fn each<A, F, Asked, Finished>(
    targets: Vec<Target>,
    most: usize,
    ask: A,
    finish: F,
    done: impl FnMut(&HostResult),
) -> Vec<HostResult>
where
    A: Fn(Target) -> Asked,
    F: Fn(Call) -> Finished + Clone + Send + 'static,
    Asked: Future<Output = Result<Map<String, Value>, CallError>> + Send + 'static,
    Finished: Future<Output = HostResult> + Send,
{
    let call = |target: Target| {
        // On the heap: a future keeps what it was given beside what it waits for, so that each step on the way from here
        // to the task would take the room of a whole call once more, and a thousand of them may be under way.
        let (work, finish) = (Box::pin(ask(target.clone())), finish.clone());
        async move {
            let started = Instant::now();
            let answer = work.await;
            finish(Call { target, elapsed: started.elapsed(), answer }).await
        }
    };
    fanout::map(targets, most, call, done).await
}

/// The line about a run that is about to be asked for.
pub(super) fn log_dispatch(fleet: &Fleet, targets: &[Target], order: &RunCall) {
    let hosts: Vec<&str> = targets.iter().map(|target| target.name().as_str()).collect();
    fleet.log.emit(
        Event::new(Level::Info, "dispatch")
            .field("HOSTS", hosts.join(","))
            .field("MODE", if order.detached { "async" } else { "sync" })
            .field("REQID", &order.reqid)
            .field("SCRIPT", &order.script),
    );
}

/// The agent would say the same of a body that is too large; not sending it spares every host the transfer.
pub(super) fn body(order: &RunCall) -> Result<Vec<u8>, CallError> {
    let body = serde_json::to_vec(order).map_err(|_| CallError::RequestTooLarge)?;
    if body.len() > limits::REQUEST_BODY { Err(CallError::RequestTooLarge) } else { Ok(body) }
}
