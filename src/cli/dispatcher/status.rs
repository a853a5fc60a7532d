//! `status REQID`.

use serde_json::{Map, Value, json};

use super::{Globals, call, results};
use crate::cli::out;
use crate::dispatcher::answer::HostResult;
use crate::dispatcher::call::Fleet;
use crate::dispatcher::site::Site;
use crate::dispatcher::status;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::runs::RunRecord;
use crate::wire::name::{AgentName, RequestId};

/// Which run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request id that 'run' has shown
    #[arg(value_name = "REQID")]
    reqid: String,
}

impl Args {
    /// The request id, still unjudged.
    #[must_use]
    pub fn reqid(&self) -> &str {
        &self.reqid
    }
}

/// Shows how far a run is; 0 if there is such a run.
pub fn run(reqid: &str, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    call::block_on(1, async {
        let fleet = call::fleet(&site, globals)?;
        let Some(record) = refreshed(&site, &fleet, reqid).await? else {
            return Ok(absent(reqid, globals));
        };
        show(&record, globals);
        Ok(Exit::Success)
    })?
}

/// The record of a run with what its hosts say now.
pub async fn refreshed(site: &Site, fleet: &Fleet, reqid: &str) -> Result<Option<RunRecord>, Failure> {
    let Ok(id) = RequestId::parse(reqid) else { return Ok(None) };
    status::refresh(site, fleet, &id).await.map_err(unreadable)
}

/// Records that cannot be read.
#[must_use]
pub fn unreadable(error: StoreError) -> Failure {
    if error.is_permission_denied() {
        return Failure::new(Exit::Permission, error).hint("run it with sudo, or as the user who ran the script");
    }
    Failure::new(Exit::Failed, error)
}

/// There is no such run: how the process ends.
#[must_use]
pub fn absent(reqid: &str, globals: &Globals) -> Exit {
    if globals.json {
        out::json(&json!({ "ok": 0, "error": "not found", "reqid": reqid }));
    } else {
        out::error(format!("No such request: {reqid}"));
    }
    Exit::Failed
}

/// Prints a record.
pub fn show(record: &RunRecord, globals: &Globals) {
    if globals.json {
        let mut fields = json!({ "ok": 1 });
        if let (Some(all), Ok(Value::Object(record))) = (fields.as_object_mut(), serde_json::to_value(record)) {
            all.extend(record);
        }
        return out::json(&fields);
    }
    let (reqid, script, complete) = match record {
        RunRecord::Sync(run) => (&run.reqid, &run.script, true),
        RunRecord::Async(run) => (&run.reqid, &run.script, run.pending.is_empty()),
    };
    let word = if complete { "COMPLETE" } else { "PENDING" };
    out::line(format!("Request {reqid}  (script: {script})  [{word}]"));
    let blocks: Vec<String> = match record {
        RunRecord::Sync(run) => run.results.iter().filter_map(result).map(|result| results::block(&result)).collect(),
        RunRecord::Async(run) => {
            let hosts = run.hosts.iter().filter_map(|(name, fields)| named(name, fields));
            hosts.map(|result| results::state(&result)).collect()
        }
    };
    out::text(&blocks.concat());
}

fn result(stored: &Value) -> Option<HostResult> {
    let fields = stored.as_object()?;
    named(fields.get("host")?.as_str()?, fields)
}

/// A host's part of a record.
#[must_use]
pub fn named(name: &str, fields: &Map<String, Value>) -> Option<HostResult> {
    Some(HostResult { host: AgentName::parse(name).ok()?, fields: fields.clone() })
}

/// How `wait` ends: 2 while a job has no end, 1 if any host has failed.
#[must_use]
pub fn verdict(record: &RunRecord) -> Exit {
    let failed = |result: &HostResult| match result.text("status") {
        "busy" | "error" | "expired" | "lost" => true,
        "done" => result.exit() != 0,
        _ => false,
    };
    match record {
        RunRecord::Async(run) if !run.pending.is_empty() => Exit::Pending,
        RunRecord::Async(run) => {
            let mut hosts = run.hosts.iter().filter_map(|(name, fields)| named(name, fields));
            if hosts.any(|result| failed(&result)) { Exit::Failed } else { Exit::Success }
        }
        RunRecord::Sync(run) => {
            let good = run.results.iter().all(|result| result.get("exit").and_then(Value::as_i64) == Some(0));
            if good { Exit::Success } else { Exit::Failed }
        }
    }
}
