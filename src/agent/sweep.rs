//! The jobs that are over: recorded at the start, and forgotten when they are too old or too many. And answers that nobody
//! reads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::jobs;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::store::jobs::{Limits, RETENTION};
use crate::sys::clock;
use crate::wire::causes;

/// Longest time between two sweeps.
const INTERVAL: Duration = Duration::from_hours(1);
/// A sweep is followed by a rest of so many times its own length, so that many jobs do not mean as many sweeps.
const REST: u32 = 20;

/// Bounds of the time between two looks for answers that nobody reads: also those that were spared have to give way some time.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Ends, again and again, the answers of which nothing was taken for `stall_timeout`, or that are too many.
pub async fn end_stalled(agent: Arc<Agent>) -> Infallible {
    loop {
        let patience = agent.snapshot().settings.stall_timeout;
        tokio::time::sleep((patience / 4).clamp(LOOKS.0, LOOKS.1)).await;
        agent.unread.turn_out(patience, Instant::now());
    }
}

/// Sweeps at once, at each submission and every hour.
pub async fn sweep(agent: Arc<Agent>) -> Infallible {
    loop {
        let snapshot = agent.snapshot();
        let limits = Limits { age: RETENTION, bytes: snapshot.settings.async_max_bytes };
        let started = Instant::now();
        let swept = jobs::work(&jobs::store(&agent, &snapshot), move |jobs| jobs.sweep(limits, clock::now())).await;
        if let Err(error) = swept {
            let event = Event::new(Level::Error, "async-sweep-fail");
            agent.log().emit(event.field("ERROR", causes::on_one_line(&error)));
        }
        drop(snapshot);
        tokio::time::sleep(started.elapsed() * REST).await;
        tokio::select! {
            () = agent.tidy.notified() => {}
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
