//! What is left of scripts that nothing confines, when executor and monitor are gone.
//!
//! A private executor ends whatever falls to it. One that was killed leaves its monitors to nobody, and so does one whose agent
//! was killed; if such a monitor is killed, too, this finds whoever it leaves by their marks ([`Family`]) and ends them: at the
//! start of the agent, and whenever one of those monitors ends.
//!
//! [`Family`]: crate::sys::process::Family

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::state::Agent;
use crate::audit::{Event, Level};
use crate::sys::process::{self, Family, Outlook};

/// Bounds of the time between two looks while somebody is being ended; it doubles.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// Whose the runs are of the agent whose jobs are here. This process is none of them, though a script of its own may have
/// started it: the monitor of that is not this process's.
///
/// # Errors
/// Not expected of the kernel.
pub(super) fn family(jobs: &Path) -> io::Result<Family> {
    process::leave_family()?;
    Ok(Family::of(jobs.as_os_str().as_bytes()))
}

/// Ends whoever is left, again and again, and tells of private executors that have ended.
pub(super) async fn look_after(agent: Arc<Agent>) -> Infallible {
    let Some(family) = agent.orders().family() else { return std::future::pending().await };
    let (mut pause, mut told) = (PAUSES.0, 0);
    loop {
        let rest = match look(&agent, family).await {
            Ok(Outlook { monitors, ended, dying }) => {
                if ended > told {
                    let event = Event::new(Level::Warning, "exec-orphans").field("PROCESSES", ended);
                    agent.log().emit(event.field("REASON", "their monitor was killed: they are ended"));
                }
                (told, pause) = if dying { (told.max(ended), pause.min(PAUSES.1)) } else { (0, PAUSES.0) };
                Rest { monitors, pause: dying.then_some(pause) }
            }
            Err(error) => {
                agent.log().emit(Event::new(Level::Error, "exec-orphans").field("ERROR", error));
                Rest::default()
            }
        };
        pause = pause.saturating_mul(2);
        tokio::select! {
            () = rest.ends() => {}
            how = agent.orders().service_ends() => agent.log().emit(ended(how)),
        }
    }
}

async fn look(agent: &Agent, family: Family) -> io::Result<Outlook> {
    let service = agent.orders().service().await;
    spawn_blocking(move || family.end_bereft(service)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// What there is to wait for until the next look.
#[derive(Default)]
struct Rest {
    monitors: Vec<OwnedFd>,
    pause: Option<Duration>,
}

impl Rest {
    /// Waits for the first of it.
    async fn ends(self) {
        let mut ends = JoinSet::new();
        for monitor in self.monitors {
            ends.spawn(async move {
                // It is watched as a pipe is, and never read.
                match Receiver::from_owned_fd_unchecked(monitor) {
                    Ok(monitor) => drop(monitor.readable().await),
                    // The kernel watches no more of them.
                    Err(_) => sleep(PAUSES.1).await,
                }
            });
        }
        if let Some(pause) = self.pause {
            ends.spawn(sleep(pause));
        }
        if ends.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// The line about a private executor that has ended. The next order starts another.
fn ended(how: Option<ExitStatus>) -> Event {
    let event = Event::new(Level::Error, "exec-restart");
    match how.map(|how| (how.code(), how.signal())) {
        Some((Some(code), _)) => event.field("STATUS", code),
        Some((None, Some(signal))) => event.field("SIGNAL", signal),
        _ => event.field("STATUS", "unknown"),
    }
}
