//! `status` and `wait`: how far the jobs of a run are, by their hosts' word.

use std::future::ready;

use bytes::Bytes;
use hyper::Method;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::answer::{self, HostResult};
use super::call::{self, Call, Fleet};
use super::connect::{Ask, Dialer, Reply};
use super::failure::CallError;
use super::record::note;
use super::resolve::{self, ResolveError, Target};
use super::site::Site;
use crate::audit::{Level, Logger};
use crate::store::StoreError;
use crate::store::jobs::{JobRecord, JobStatus};
use crate::store::runs::{AsyncRun, RunRecord, is_pending};
use crate::wire::name::RequestId;

/// How a job's record can be read: in our own words (`wire::job`), or in the original's.
pub(super) const RECORD: &str = concat!("application/vnd.ctrl-exec.job+json", ", application/json");

/// What of a job's record is kept of its end.
const ENDED: [&str; 12] = [
    "status",
    "exit",
    "stdout",
    "stderr",
    "stdout_base64",
    "stderr_base64",
    "truncated",
    "unknown",
    "error",
    "reason",
    "hint",
    "finished",
];

/// The record of a run, after every host whose job has no end yet was asked for it. `None` where there is no such run.
///
/// Only registered agents are asked, at the port that the run was submitted to.
pub async fn refresh(site: &Site, fleet: &Fleet, id: &RequestId) -> Result<Option<RunRecord>, StoreError> {
    let record = site.runs.get(id)?;
    let Some(RunRecord::Async(mut run)) = record else { return Ok(record) };
    let (targets, strangers) = pending(site, &run);
    let ask = |target| ask(fleet.dialer.clone(), id.to_string(), target);
    let (log, reqid) = (fleet.log.clone(), id.to_string());
    let results = call::each(targets, fleet.most, ask, move |call| ready(finish(&log, &reqid, &call)), |_| {}).await;
    let change = |run: &mut AsyncRun| {
        for result in &results {
            merge(run, result);
        }
        for (name, error) in &strangers {
            let host = run.hosts.get_mut(name).filter(|host| is_pending(host));
            host.map(|host| host.insert("fetch_error".to_owned(), error.as_str().into()));
        }
    };
    match site.runs.update(id, change) {
        Ok(Some(run)) => return Ok(Some(RunRecord::Async(run))),
        Ok(None) => {}
        Err(error) => note(&site.log, id, Err(error)),
    }
    change(&mut run);
    run.recount();
    Ok(Some(RunRecord::Async(run)))
}

/// The hosts of a run whose jobs have no end yet; and those that cannot be asked, with the reason.
pub fn pending(site: &Site, run: &AsyncRun) -> (Vec<Target>, Vec<(String, String)>) {
    let (mut targets, mut strangers) = (Vec::new(), Vec::new());
    for (name, host) in run.hosts.iter().filter(|(_, host)| is_pending(host)) {
        let port = host.get("port").and_then(Value::as_u64);
        let reference = port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
        match resolve::resolve(&site.registry, &[reference], Some(site.settings.port)) {
            Ok(found) => targets.extend(found),
            Err(ResolveError::Unknown { .. }) => strangers.push((name.clone(), format!("unknown agent: {name}"))),
            Err(error) => strangers.push((name.clone(), error.to_string())),
        }
    }
    (targets, strangers)
}

async fn ask(dialer: Dialer, reqid: String, target: Target) -> Result<Map<String, Value>, CallError> {
    let ask = Ask { method: Method::GET, path: &format!("/result/{reqid}"), accept: RECORD, body: Bytes::new() };
    let Reply { body, .. } = dialer.ask(&target, ask).await?;
    answer::object(&body, "invalid JSON").map(as_meant)
}

/// A job's record as whoever wrote it meant it. An agent of the original that has taken the place of one of ours hands out its
/// records as they stand in the file, where a lost job is one that is `done` (`store::jobs::JobRecord`).
pub(super) fn as_meant(fields: Map<String, Value>) -> Map<String, Value> {
    let meant = JobRecord::deserialize(&fields).ok().map(JobRecord::as_meant);
    let lost = meant.filter(|record| record.status == JobStatus::Lost);
    match lost.map(serde_json::to_value) {
        Some(Ok(Value::Object(record))) => record,
        _ => fields,
    }
}

/// The host's word on its job: its record, `unknown`, or an error.
pub(super) fn finish(log: &Logger, reqid: &str, call: &Call) -> HostResult {
    let line = |level| call.line(level, "result", reqid);
    match &call.answer {
        Ok(fields) => {
            let result = call.answered(fields);
            log.emit(line(Level::Info).field("STATUS", result.text("status")));
            result
        }
        Err(error) => {
            let unknown = matches!(error, CallError::NotFound(_));
            if !unknown {
                log.emit(line(error.level()).field("ERROR", error));
            }
            call.failed(error, [("status", if unknown { "unknown" } else { "error" }), ("reqid", reqid)])
        }
    }
}

/// Takes a host's word into the record, unless the job's end is known already.
fn merge(run: &mut AsyncRun, result: &HostResult) {
    let Some(host) = run.hosts.get_mut(result.host.as_str()).filter(|host| is_pending(host)) else { return };
    match result.text("status") {
        "done" | "lost" => {
            let known = |(key, _): &(&String, &Value)| ENDED.contains(&key.as_str());
            *host = result.fields.iter().filter(known).map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        "running" => {
            host.insert("status".to_owned(), "running".into());
            host.shift_remove("fetch_error");
        }
        "unknown" => {
            host.insert("status".to_owned(), "expired".into());
            host.shift_remove("fetch_error");
        }
        other => {
            let error = match result.text("error") {
                "" => format!("the agent calls the job '{other}'"),
                error => error.to_owned(),
            };
            host.insert("fetch_error".to_owned(), error.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::name::AgentName;

    fn merged(host: &Value, result: &Value) -> Value {
        let run = json!({"reqid": "ab", "hosts": {"web": host}});
        let mut run: AsyncRun = serde_json::from_value(run).unwrap();
        let fields = result.as_object().unwrap().clone();
        merge(&mut run, &HostResult::answered(&AgentName::parse("web").unwrap(), fields));
        Value::Object(run.hosts["web"].clone())
    }

    #[test]
    fn a_hosts_word_becomes_its_state() {
        let accepted = || json!({"status": "accepted", "fetch_error": "x", "port": 1});
        let done = json!({"status": "done", "exit": 0, "stdout": "a", "stderr": "", "script": "x", "rtt": "1ms"});
        assert_eq!(merged(&accepted(), &done), json!({"status": "done", "exit": 0, "stdout": "a", "stderr": ""}));
        let lost =
            json!({"status": "lost", "exit": -1, "unknown": true, "reason": "outcome-unknown", "error": "killed"});
        assert_eq!(merged(&accepted(), &lost), lost);
        assert_eq!(merged(&accepted(), &json!({"status": "running"})), json!({"status": "running", "port": 1}));
        assert_eq!(merged(&accepted(), &json!({"status": "unknown"})), json!({"status": "expired", "port": 1}));
        let error = merged(&json!({"status": "running"}), &json!({"status": "error", "error": "no route"}));
        assert_eq!(error, json!({"status": "running", "fetch_error": "no route"}));
    }

    #[test]
    fn a_record_of_ours_that_an_agent_of_the_original_hands_out_is_of_a_lost_job() {
        let fields = |value: Value| value.as_object().unwrap().clone();
        let on_file = json!({"stdout": "a", "stderr": "b\nctrl-exec-agent: why\n", "reqid": "ab", "status": "done", "script": "x",
            "owner": "o", "started": "", "finished": "", "exit": -1, "reason": "outcome-unknown", "unknown": true,
            "error": "why", "lost": "\nctrl-exec-agent: why\n"});
        let meant = as_meant(fields(on_file));
        assert_eq!((&meant["status"], &meant["stderr"], &meant["error"]), (&json!("lost"), &json!("b"), &json!("why")));
        assert_eq!((&meant["unknown"], meant.get("lost")), (&json!(true), None));
        for other in
            [json!({"status": "done", "exit": -1, "reqid": "ab", "lost": 1}), json!({"status": "busy", "lost": "x"})]
        {
            assert_eq!(as_meant(fields(other.clone())), fields(other));
        }
    }

    #[test]
    fn our_own_words_for_a_job_are_asked_for() {
        assert!(RECORD.split(", ").any(|kind| kind == crate::wire::job::MEDIA_TYPE));
    }

    #[test]
    fn an_end_that_is_known_stays() {
        let busy = json!({"status": "busy", "error": "e"});
        assert_eq!(merged(&busy, &json!({"status": "done", "exit": 0})), busy);
    }
}
