//! `cancel`: ends the jobs of a run on every host where they have no end yet.

use std::future::ready;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Ask, Dialer, Reply};
use super::failure::CallError;
use super::resolve::Target;
use super::status::RECORD;
use crate::audit::{Level, Logger};
use crate::wire::name::RequestId;

/// Cancels the job of this id on every target. A result whose status is `running` is that of a job which is being ended and
/// takes longer than its agent has waited for.
pub async fn cancel(fleet: &Fleet, targets: Vec<Target>, id: &RequestId) -> Vec<HostResult> {
    let ask = |target| ask(fleet.dialer.clone(), id.to_string(), target);
    let (log, reqid) = (fleet.log.clone(), id.to_string());
    call::each(targets, fleet.most, ask, move |call| ready(finish(&log, &reqid, &call)), |_| {}).await
}

async fn ask(dialer: Dialer, reqid: String, target: Target) -> Result<Map<String, Value>, CallError> {
    let body = Bytes::from_static(b"{}");
    let ask = Ask { method: Method::POST, path: &format!("/cancel/{reqid}"), accept: RECORD, body };
    let Reply { body, .. } = dialer.ask(&target, ask).await?;
    answer::object(&body, "invalid JSON")
}

fn finish(log: &Logger, reqid: &str, call: &Call) -> HostResult {
    let line = |level| call.line(level, "cancel", reqid);
    match &call.answer {
        Ok(fields) => {
            let result = call.answered(fields);
            log.emit(line(Level::Info).field("STATUS", result.text("status")));
            result
        }
        Err(error) => {
            // Ours says of a job that it does not know it; the original's agent does not know the request.
            let text = match error {
                CallError::NotFound(text) if text == "not found" => "this agent cannot cancel jobs".to_owned(),
                CallError::NotFound(_) => "the agent knows no such job".to_owned(),
                CallError::Conflict { text, .. } => text.clone(),
                other if other.is_outcome_unknown() => format!("{other}; the job may be ending all the same"),
                other => other.to_string(),
            };
            log.emit(line(Level::Error).field("ERROR", &text));
            let mut result = call.failed(error, [("status", "error"), ("reqid", reqid)]);
            result.fields.insert("error".to_owned(), text.into());
            result
        }
    }
}
