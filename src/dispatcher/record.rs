//! The record of a run: begun before anything is sent, so that a job that was accepted can be found by whoever comes
//! later, and completed by what the hosts say.
//!
//! A record that cannot be written is logged, and the run goes on: its results are told all the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::HostResult;
use super::resolve::Target;
use super::site::Site;
use crate::audit::{Event, Level, Logger};
use crate::store::StoreError;
use crate::store::runs::{AsyncRun, RunRecord, Submitter, SyncRun};
use crate::sys::clock;
use crate::wire::causes;
use crate::wire::name::RequestId;
use crate::wire::run::RunCall;

/// Records detached jobs that are about to be submitted. A host that will turn out not to have taken its job is marked
/// by [`submitted`]; if it does not come to that, the host's own word is asked for like any other's.
pub fn begin(site: &Site, id: &RequestId, order: &RunCall, targets: &[Target], submitter: Submitter) {
    let host = |target: &Target| {
        let mut host = Map::new();
        host.insert("status".to_owned(), "accepted".into());
        // The port that was asked for and is not the registry's is part of the address.
        if target.port != target.record.port {
            host.insert("port".to_owned(), target.port.into());
        }
        (target.name().to_string(), host)
    };
    let hosts: BTreeMap<_, _> = targets.iter().map(host).collect();
    let mut run = AsyncRun {
        reqid: id.to_string(),
        script: order.script.clone(),
        hosts,
        created: clock::unix_now().into(),
        pending: Vec::new(),
        complete: false.into(),
        submitter: Some(submitter),
        extra: Map::new(),
    };
    run.recount();
    note(&site.log, id, site.runs.save(id, &RunRecord::Async(run), clock::now()));
}

/// Records what the hosts said to their jobs.
pub fn submitted(site: &Site, id: &RequestId, results: &[HostResult]) {
    let change = |run: &mut AsyncRun| {
        // A host that was named twice has taken one job and refused the other.
        let taken: Vec<&HostResult> = results.iter().filter(|result| is_taken(result)).collect();
        for result in results.iter().filter(|result| !is_taken(result)) {
            let Some(host) = run.hosts.get_mut(result.host.as_str()) else { continue };
            if taken.iter().any(|other| other.host == result.host) {
                continue;
            }
            let status = if result.text("status") == "busy" { "busy" } else { "error" };
            host.insert("status".to_owned(), status.into());
            host.insert("error".to_owned(), result.text("error").into());
        }
    };
    note(&site.log, id, site.runs.update(id, change).map(|_| ()));
}

/// Whether a host has a job by its answer; or may have one, which its own word will show.
fn is_taken(result: &HostResult) -> bool {
    matches!(result.text("status"), "accepted" | "running" | "done" | "lost")
        || result.fields.get("unknown").is_some_and(|unknown| unknown == true)
}

/// Records a run that was waited for.
pub fn finished(site: &Site, id: &RequestId, order: (&str, &[String]), results: &[HostResult], submitter: Submitter) {
    let (script, hosts) = order;
    let record = RunRecord::Sync(SyncRun {
        reqid: id.to_string(),
        script: script.to_owned(),
        hosts: hosts.iter().map(|host| host.as_str().into()).collect(),
        results: results.iter().map(|result| Value::Object(result.fields.clone())).collect(),
        completed: clock::unix_now().into(),
        complete: true.into(),
        submitter: Some(submitter),
        extra: Map::new(),
    });
    note(&site.log, id, site.runs.save(id, &record, clock::now()));
}

/// A record that could not be written.
pub(super) fn note(log: &Logger, id: &RequestId, result: Result<(), StoreError>) {
    if let Err(error) = result {
        let event = Event::new(Level::Warning, "run-store-fail").field("ERROR", causes::on_one_line(&error));
        log.emit(event.field("REQID", id));
    }
}
