//! `cancel REQID`.

use super::{Globals, call, status};
use crate::cli::out;
use crate::dispatcher::cancel;
use crate::dispatcher::status::pending;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::{Context, Submitter};
use crate::store::runs::{AsyncRun, RunRecord};
use crate::wire::name::RequestId;

/// Ends the jobs of a run and shows what became of them; 0 if none goes on.
pub fn run(reqid: &str, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    call::block_on(1, async {
        let fleet = call::fleet(&site, globals)?;
        let record = match RequestId::parse(reqid) {
            Ok(id) => site.runs.get(&id).map_err(status::unreadable)?.map(|record| (id, record)),
            Err(_) => None,
        };
        let Some((id, record)) = record else { return Ok(status::absent(reqid, globals)) };
        if let RunRecord::Async(run) = &record {
            if let Err(exit) = call::allowed(&site, globals, context(run)).await {
                return Ok(exit);
            }
            let (targets, strangers) = pending(&site, run);
            for (name, error) in &strangers {
                out::error(format!("{name}: not cancelled: {error}"));
            }
            let results = cancel::cancel(&fleet, targets, &id).await;
            for result in results.iter().filter(|result| result.text("status") == "error") {
                out::error(format!("{}: not cancelled: {}", result.host, result.text("error")));
            }
        }
        let Some(record) = status::refreshed(&site, &fleet, reqid).await? else {
            return Ok(status::absent(reqid, globals));
        };
        status::show(&record, globals);
        Ok(if status::verdict(&record) == Exit::Pending { Exit::Failed } else { Exit::Success })
    })?
}

fn context(run: &AsyncRun) -> Context {
    let submitter = run.submitter.clone().unwrap_or_default();
    Context {
        action: "cancel".to_owned(),
        script: run.script.clone(),
        hosts: run.hosts.keys().cloned().collect(),
        reqid: run.reqid.clone(),
        submitter: Some(Submitter { username: submitter.username, source_ip: submitter.source_ip }),
        ..Context::default()
    }
}
