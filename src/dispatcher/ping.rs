//! `ping`: which agents answer, with which version, and until when their certificates are good.

use std::future::ready;

use hyper::Method;
use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Dialer, Reply};
use super::failure::CallError;
use super::resolve::Target;
use crate::audit::{Level, Logger};
use crate::wire::ping::PingCall;

/// Pings every target; results are in the order of the targets.
pub async fn ping(fleet: &Fleet, targets: Vec<Target>, reqid: &str, done: impl FnMut(&HostResult)) -> Vec<HostResult> {
    let ask = |target| ask(fleet.dialer.clone(), reqid.to_owned(), target);
    let (log, reqid) = (fleet.log.clone(), reqid.to_owned());
    call::each(targets, fleet.most, ask, move |call| ready(finish(&log, &reqid, &call)), done).await
}

async fn ask(dialer: Dialer, reqid: String, target: Target) -> Result<Map<String, Value>, CallError> {
    let body = serde_json::to_vec(&PingCall { reqid }).map_err(|_| CallError::RequestTooLarge)?;
    let called = dialer.call(&target, Method::POST, "/ping", body).await;
    let Reply { body, .. } = called.map_err(|error| match error {
        // Nothing was started that could still be running: to who pings, silence is silence.
        CallError::ReadTimeout(_) => CallError::TimedOut { host: target.address().to_owned() },
        other => other,
    })?;
    answer::object(&body, "invalid JSON")
}

fn finish(log: &Logger, reqid: &str, call: &Call) -> HostResult {
    let line = |level| call.line(level, "ping", reqid);
    match &call.answer {
        Ok(fields) => {
            log.emit(line(Level::Info).field("RESULT", "ok"));
            call.answered(fields)
        }
        Err(error) => {
            log.emit(line(Level::Error).field("ERROR", error));
            call.failed(error, [("status", "error")])
        }
    }
}
