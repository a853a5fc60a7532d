//! `run`: one script on many hosts.

use std::sync::Arc;

use hyper::Method;
use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Dialer, Reply};
use super::failure::CallError;
use super::resolve::Target;
use crate::audit::{Event, Level, Logger};
use crate::wire::limits;
use crate::wire::run::RunCall;

/// Runs `order` on every target. Results are in the order of the targets; `done` sees each
/// as it completes.
pub async fn run(
    fleet: &Fleet,
    targets: Vec<Target>,
    order: RunCall,
    done: impl FnMut(&HostResult),
) -> Vec<HostResult> {
    let hosts: Vec<&str> = targets.iter().map(|target| target.name().as_str()).collect();
    fleet.log.emit(
        Event::new(Level::Info, "dispatch")
            .field("HOSTS", hosts.join(","))
            .field("MODE", "sync")
            .field("REQID", &order.reqid)
            .field("SCRIPT", &order.script),
    );
    let order = Arc::new(order);
    let ask = |target| ask(fleet.dialer.clone(), Arc::clone(&order), target);
    let (log, finished) = (fleet.log.clone(), Arc::clone(&order));
    call::each(targets, fleet.most, ask, move |call| finish(&log, &finished, &call), done).await
}

async fn ask(dialer: Dialer, order: Arc<RunCall>, target: Target) -> Result<Map<String, Value>, CallError> {
    let body = serde_json::to_vec(order.as_ref()).map_err(|_| CallError::RequestTooLarge)?;
    // The agent would say the same; not sending it spares every host the transfer.
    if body.len() > limits::REQUEST_BODY {
        return Err(CallError::RequestTooLarge);
    }
    let Reply { body, .. } = dialer.call(&target, Method::POST, "/run", body).await?;
    answer::object(&body, "invalid JSON response")
}

fn finish(log: &Logger, order: &RunCall, call: &Call) -> HostResult {
    let (host, rtt) = (call.target.name(), answer::rtt(call.elapsed));
    let event = |level| {
        Event::new(level, "run")
            .field("REQID", &order.reqid)
            .field("RTT", &rtt)
            .field("SCRIPT", &order.script)
            .field("TARGET", call.target.label())
    };
    match &call.answer {
        Ok(fields) => {
            let mut result = HostResult::answered(host, fields.clone());
            result.default_field("reqid", order.reqid.as_str());
            result.fields.insert("rtt".to_owned(), rtt.as_str().into());
            log.emit(event(Level::Info).field("EXIT", result.exit()));
            result
        }
        Err(error) => {
            log.emit(event(Level::Error).field("ERROR", error));
            let fields = [
                ("script", order.script.as_str().into()),
                ("exit", Value::from(-1)),
                ("rtt", rtt.into()),
                ("reqid", order.reqid.as_str().into()),
            ];
            HostResult::failed(host, error, fields)
        }
    }
}
