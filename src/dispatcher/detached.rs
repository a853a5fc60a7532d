//! `run --async`: one script on many hosts, as jobs that nobody waits for.

use std::future::ready;
use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Dialer, Reply};
use super::failure::CallError;
use super::resolve::Target;
use crate::audit::{Event, Level, Logger};
use crate::wire::run::RunCall;

/// Submits a job on every target. Results are in the order of the targets; `done` sees each as it completes.
pub async fn submit(
    fleet: &Fleet,
    targets: Vec<Target>,
    order: RunCall,
    done: impl FnMut(&HostResult),
) -> Vec<HostResult> {
    let order = RunCall { detached: true, ..order };
    call::log_dispatch(fleet, &targets, &order);
    let order = Arc::new(order);
    let ask = |target| ask(fleet.dialer.clone(), Arc::clone(&order), target);
    let (log, finished) = (fleet.log.clone(), Arc::clone(&order));
    call::each(targets, fleet.most, ask, move |call| ready(finish(&log, &finished, &call)), done).await
}

async fn ask(dialer: Dialer, order: Arc<RunCall>, target: Target) -> Result<Map<String, Value>, CallError> {
    let Reply { body, .. } = dialer.call(&target, Method::POST, "/run", call::body(&order)?).await?;
    answer::object(&body, "invalid JSON response")
}

/// The host's word on its job: accepted, busy, or an error.
pub(super) fn finish(log: &Logger, order: &RunCall, call: &Call) -> HostResult {
    let (host, rtt) = (call.target.name(), answer::rtt(call.elapsed));
    let event = |level| {
        Event::new(level, "run-async")
            .field("REQID", &order.reqid)
            .field("RTT", &rtt)
            .field("SCRIPT", &order.script)
            .field("TARGET", call.target.label())
    };
    let own = || [("script", order.script.as_str()), ("reqid", &order.reqid), ("rtt", &rtt)];
    let failed = |status: &'static str, error: &CallError, text: String| {
        let fields = own().into_iter().chain([("status", status)]).map(|(key, value)| (key, Value::from(value)));
        let mut result = HostResult::failed(host, error, fields);
        result.fields.insert("error".to_owned(), text.into());
        result
    };
    match &call.answer {
        Ok(fields) => {
            let mut result = HostResult::answered(host, fields.clone());
            result.default_field("reqid", order.reqid.as_str());
            result.fields.insert("rtt".to_owned(), rtt.as_str().into());
            log.emit(match result.text("status") {
                "" => event(Level::Error).field("ERROR", result.text("error")),
                status => event(Level::Info).field("STATUS", status),
            });
            result
        }
        Err(error @ CallError::Conflict(text)) => {
            log.emit(event(Level::Warning).field("STATUS", "busy"));
            failed("busy", error, text.clone())
        }
        Err(error) => {
            log.emit(event(Level::Error).field("ERROR", error));
            let mut result = failed("error", error, error.to_string());
            if may_run(error) {
                result.fields.insert("unknown".to_owned(), true.into());
                let hint = format!("the job may run all the same: 'ctrl-exec status {}' asks for it", order.reqid);
                result.fields.insert("hint".to_owned(), hint.into());
            }
            result
        }
    }
}

/// Whether the request may have reached the agent.
const fn may_run(error: &CallError) -> bool {
    use CallError as E;
    matches!(error, E::ReadTimeout(_) | E::Lost { .. } | E::Torn { .. } | E::AnswerTooLarge(_) | E::Malformed(_))
}
