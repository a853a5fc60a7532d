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
use crate::audit::{Level, Logger};
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
    let line = |level| call.line(level, "run-async", &order.reqid).field("SCRIPT", &order.script);
    let failed = |status: &str, error: &CallError| {
        call.failed(error, [("script", order.script.as_str()), ("reqid", &order.reqid), ("status", status)])
    };
    match &call.answer {
        Ok(fields) => {
            let mut result = call.answered(fields);
            result.default_field("reqid", order.reqid.as_str());
            log.emit(match result.text("status") {
                "" => line(Level::Error).field("ERROR", result.text("error")),
                status => line(Level::Info).field("STATUS", status),
            });
            result
        }
        Err(error @ CallError::Conflict { text, .. }) => {
            log.emit(line(Level::Warning).field("STATUS", "busy"));
            let mut result = failed("busy", error);
            result.fields.insert("error".to_owned(), text.as_str().into());
            result
        }
        Err(error) => {
            log.emit(line(error.level()).field("ERROR", error));
            let mut result = failed("error", error);
            if error.is_outcome_unknown() {
                result.mark_unknown();
                let hint = format!("the job may run all the same: 'ctrl-exec status {}' asks for it", order.reqid);
                result.fields.insert("hint".to_owned(), hint.into());
            }
            result
        }
    }
}
