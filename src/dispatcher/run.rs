//! `run`: one script on many hosts.

use std::future::ready;
use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Ask, Dialer, Reply};
use super::failure::CallError;
use super::live::{ACCEPT, Live, while_heard};
use super::resolve::Target;
use super::{detached, follow};
use crate::audit::{Level, Logger};
use crate::wire::run::RunCall;

/// Runs `order` on every target. Results are in the order of the targets; `done` sees each as it completes.
pub async fn run(
    fleet: &Fleet,
    targets: Vec<Target>,
    order: RunCall,
    done: impl FnMut(&HostResult),
) -> Vec<HostResult> {
    call::log_dispatch(fleet, &targets, &order);
    let order = Arc::new(order);
    let ask = |target| ask(fleet.dialer.clone(), Arc::clone(&order), target);
    let (log, finished) = (fleet.log.clone(), Arc::clone(&order));
    call::each(targets, fleet.most, ask, move |call| ready(finish(&log, &finished, &call)), done).await
}

/// Runs `order` on every target and tells what is printed while it is printed. `live` is bounded, and a full one holds
/// the hosts back, each through its own connection; a closed one ends the calls. An agent that does not stream tells its output at its end.
///
/// A detached `order` is a job that is followed: it goes on, whatever becomes of us. That the request asks for a job is
/// what every agent understands, also one that cannot stream it; so the promise holds with all of them.
pub async fn run_live(
    fleet: &Fleet,
    targets: Vec<Target>,
    order: RunCall,
    live: mpsc::Sender<Live>,
) -> Vec<HostResult> {
    call::log_dispatch(fleet, &targets, &order);
    let order = Arc::new(order);
    let ask = |target| {
        let (dialer, order, live) = (fleet.dialer.clone(), Arc::clone(&order), live.clone());
        async move { while_heard(&live, ask_live(dialer, order, target, live.clone())).await }
    };
    let (log, finished, ended) = (fleet.log.clone(), Arc::clone(&order), live.clone());
    let finish = move |call: Call| {
        let judge = if finished.detached { detached::finish } else { finish };
        let (result, ended) = (judge(&log, &finished, &call), ended.clone());
        async move {
            // Nobody listens any more: the results are returned all the same.
            let _ = ended.send(Live::Ended(result.clone())).await;
            result
        }
    };
    call::each(targets, fleet.most, ask, finish, |_| {}).await
}

async fn ask(dialer: Dialer, order: Arc<RunCall>, target: Target) -> Result<Map<String, Value>, CallError> {
    let Reply { body, .. } = dialer.call(&target, Method::POST, "/run", call::body(&order)?).await?;
    answer::object(&body, "invalid JSON response")
}

async fn ask_live(
    dialer: Dialer,
    order: Arc<RunCall>,
    target: Target,
    live: mpsc::Sender<Live>,
) -> Result<Map<String, Value>, CallError> {
    let ask = Ask { method: Method::POST, path: "/run", accept: ACCEPT, body: call::body(&order)?.into() };
    let each = |channel, bytes| {
        let (live, host) = (live.clone(), target.name().clone());
        async move {
            // Where nobody listens any more, the call ends of itself.
            let _ = live.send(Live::Output { host, channel, bytes }).await;
        }
    };
    let Reply { body, .. } = dialer.stream(&target, ask, each).await?;
    let answer = answer::object(&body, "invalid JSON response")?;
    if order.detached && answer.get("status").is_some_and(|status| status == "accepted") {
        return Ok(accepted(answer, &dialer, &target, &order.reqid, &live).await);
    }
    Ok(answer)
}

/// Follows a job that the agent has taken and does not stream of itself. It is taken whatever becomes of that.
async fn accepted(
    mut answer: Map<String, Value>,
    dialer: &Dialer,
    target: &Target,
    reqid: &str,
    live: &mpsc::Sender<Live>,
) -> Map<String, Value> {
    match follow::to_the_end(dialer, target, reqid, live).await {
        Ok(record) => record,
        Err(error) => {
            answer.insert("error".to_owned(), error.to_string().into());
            let hint = format!("the job goes on: 'ctrl-exec status {reqid}' asks for it");
            answer.insert("hint".to_owned(), hint.into());
            answer
        }
    }
}

fn finish(log: &Logger, order: &RunCall, call: &Call) -> HostResult {
    let line = |level| call.line(level, "run", &order.reqid).field("SCRIPT", &order.script);
    match &call.answer {
        Ok(fields) => {
            let mut result = call.answered(fields);
            result.default_field("reqid", order.reqid.as_str());
            log.emit(line(Level::Info).field("EXIT", result.exit()));
            result
        }
        Err(error) => {
            log.emit(line(error.level()).field("ERROR", error));
            let mut result = call.failed(error, [("script", order.script.as_str()), ("reqid", &order.reqid)]);
            result.default_field("exit", -1);
            if error.is_outcome_unknown() {
                result.mark_unknown();
            }
            result
        }
    }
}
