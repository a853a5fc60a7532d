//! `cancel REQID`.

use super::{Globals, call, status};
use crate::cli::out;
use crate::dispatcher::cancel;
use crate::dispatcher::status::pending;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::{Context, Submitter};
use crate::store::runs::{AsyncRun, RunRecord, is_pending};
use crate::wire::name::RequestId;

/// Ends the jobs of a run and shows what became of them; 0 if none goes on, 2 if all that do are being ended, 1 else.
pub fn run(reqid: &str, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    call::block_on(1, async {
        let fleet = call::fleet(&site, globals)?;
        let record = match RequestId::parse(reqid) {
            Ok(id) => site.runs.get(&id).map_err(status::unreadable)?.map(|record| (id, record)),
            Err(_) => None,
        };
        let Some((id, record)) = record else { return Ok(status::absent(reqid, globals)) };
        let mut ending = Vec::new();
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
            let slow = results.into_iter().filter(|result| result.text("status") == "running");
            ending.extend(slow.map(|result| result.host.to_string()));
        }
        let Some(mut record) = status::refreshed(&site, &fleet, reqid).await? else {
            return Ok(status::absent(reqid, globals));
        };
        let goes_on = mark(&mut record, &ending);
        status::show(&record, globals);
        Ok(match status::verdict(&record) {
            Exit::Pending if goes_on => Exit::Failed,
            Exit::Pending => Exit::Pending,
            _ => Exit::Success,
        })
    })?
}

/// Marks the hosts whose jobs are being ended. Whether another's job goes on.
fn mark(record: &mut RunRecord, ending: &[String]) -> bool {
    let RunRecord::Async(run) = record else { return false };
    let mut goes_on = false;
    for (name, host) in run.hosts.iter_mut().filter(|(_, host)| is_pending(host)) {
        if ending.contains(name) {
            host.insert("ending".to_owned(), true.into());
        } else {
            goes_on = true;
        }
    }
    goes_on
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
