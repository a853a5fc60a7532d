//! `result REQID [--follow]`.

use super::live::{self, Style};
use super::{Globals, call, results, status};
use crate::cli::out;
use crate::dispatcher::follow;
use crate::dispatcher::status::pending;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::store::runs::{RunRecord, is_pending};

/// Which run, and how.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request id that 'run' has shown
    #[arg(value_name = "REQID")]
    reqid: String,
    /// Show what its jobs print, from the beginning, until they have ended
    #[arg(long, conflicts_with = "json")]
    follow: bool,
}

/// Shows the results of a run as `status` does; followed, it ends as `wait` does.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    if !args.follow {
        return status::run(&args.reqid, globals);
    }
    let (site, reqid) = (globals.site()?, &args.reqid);
    call::block_on(1, async {
        let fleet = call::fleet(&site, globals)?;
        let run = match status::refreshed(&site, &fleet, reqid).await? {
            None => return Ok(status::absent(reqid, globals)),
            Some(RunRecord::Async(run)) if !run.pending.is_empty() => run,
            Some(ended) => {
                status::show(&ended, globals);
                return Ok(status::verdict(&ended));
            }
        };
        for (name, fields) in run.hosts.iter().filter(|(_, fields)| !is_pending(fields)) {
            if let Some(ended) = status::named(name, fields) {
                out::text(&results::state(&ended));
            }
        }
        let (targets, strangers) = pending(&site, &run);
        for (name, error) in &strangers {
            out::error(format!("{name}: {error}"));
        }
        let style = if run.hosts.len() == 1 { Style::Raw } else { Style::Prefixed };
        let (sender, printing) = live::start(style).map_err(|error| Failure::new(Exit::Unavailable, error))?;
        follow::follow(&fleet, targets, reqid, sender).await;
        // The last line is printed before the process ends.
        let _ = printing.join();
        if out::is_lost() {
            return Ok(Exit::Failed);
        }
        let ended = status::refreshed(&site, &fleet, reqid).await?;
        Ok(ended.map_or(Exit::Failed, |record| status::verdict(&record)))
    })?
}
