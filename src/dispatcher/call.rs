//! What `run` and `ping` share: a call to each target, timed and logged, and the results in order.

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::answer::HostResult;
use super::connect::Dialer;
use super::failure::CallError;
use super::fanout;
use super::resolve::Target;
use crate::audit::Logger;

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
        let (work, finish) = (ask(target.clone()), finish.clone());
        async move {
            let started = Instant::now();
            let answer = work.await;
            finish(Call { target, elapsed: started.elapsed(), answer }).await
        }
    };
    fanout::map(targets, most, call, done).await
}
