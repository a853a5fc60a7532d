//! `wait REQID`.

use std::time::{Duration, Instant};

use super::{Globals, call, status};
use crate::exit::Exit;
use crate::failure::Failure;

/// Time between two questions.
const PAUSE: Duration = Duration::from_secs(2);

/// Which run, and how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The request id that 'run' has shown
    #[arg(value_name = "REQID")]
    reqid: String,
    /// Seconds to wait at most
    #[arg(long, value_name = "N", default_value_t = 300)]
    timeout: u32,
}

/// Waits for a run's end and shows it; 2 if it did not come in time, 1 if any host has failed.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout.into());
    call::block_on(1, async {
        let fleet = call::fleet(&site, globals)?;
        loop {
            let Some(record) = status::refreshed(&site, &fleet, &args.reqid).await? else {
                return Ok(status::absent(&args.reqid, globals));
            };
            let (verdict, now) = (status::verdict(&record), Instant::now());
            if verdict != Exit::Pending || now >= deadline {
                status::show(&record, globals);
                return Ok(verdict);
            }
            tokio::time::sleep(PAUSE.min(deadline.saturating_duration_since(now))).await;
        }
    })?
}
