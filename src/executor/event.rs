//! What the executor has to tell for the audit log. Arguments and output are never part of it.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::audit::{Event, Level, Logger};
use crate::sys::process::End;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::Order;
use crate::wire::outcome::{EXIT_NOTHING_RAN, OUTCOME_UNKNOWN, Outcome};
use crate::wire::trace::TraceParent;

/// One event, one line.
#[derive(Debug)]
pub enum ExecEvent<'a> {
    /// An order came to its end, whichever.
    Ended {
        /// The order; none if what came was not one.
        order: Option<&'a Order>,
        /// The script's profile, once decided.
        profile: Option<&'a str>,
        /// Of that only its times count, since there are no rights to apply more of it with.
        unconfined: bool,
        /// The script's process id, if a process was made.
        pid: Option<i32>,
        /// How it ended.
        outcome: &'a Outcome,
    },
    /// The monitor of an order was killed: nobody knows how the script ended, which is gone with it.
    Lost {
        /// The order's id.
        request: &'a RequestId,
        /// The script's name.
        script: &'a ScriptName,
        /// The trace that the order was part of.
        trace: Option<&'a TraceParent>,
        /// The monitor's process id.
        monitor: i32,
        /// The signal's number.
        signal: i32,
    },
    /// The outcome of a detached order could not be written to its status file.
    StatusLost {
        /// The order's id.
        request: &'a RequestId,
        /// The system's reason.
        reason: &'a io::Error,
    },
    /// Descendants of a script are still there long after they were killed (another user's, or stuck in the
    /// kernel). The order stays open until they are gone.
    Lingering {
        /// The order's id.
        request: &'a RequestId,
    },
    /// The front-end said something that is not part of the protocol.
    Ignored {
        /// What was wrong with it.
        reason: &'a str,
    },
    /// The executor takes orders.
    Listening {
        /// Its socket.
        path: &'a Path,
        /// Whether the init system made the socket.
        handed_over: bool,
    },
    /// Somebody connected who is neither the agent nor root, or a confined script that is root.
    Stranger {
        /// Whose process it was.
        uid: u32,
        /// Its process id then.
        pid: i32,
    },
    /// The executor died and another has taken its place.
    Restarted {
        /// How it died.
        end: End,
    },
    /// Another file was taken up by this process, or was not and the old one goes on.
    Upgraded {
        /// Why not.
        failure: Option<&'a str>,
    },
    /// Scripts inherit something from whoever started the executor after all.
    Inherited {
        /// What could not be put right, and what the host keeps narrower.
        kept: &'a [String],
    },
    /// `trusted_paths` is off: scripts are executed that others than root may have written.
    TrustLifted,
    /// A place of the agent's own that was not there was made, so that no script can make it.
    Made {
        /// Which.
        path: &'a Path,
    },
    /// The configuration was read again and is in force.
    Reloaded,
    /// The configuration was read again and is broken; the old one stays in force.
    ReloadFailed {
        /// Every error with its place.
        text: &'a str,
    },
}

/// Where events go. Nothing here waits for who reads them but [`Trail::settle`], and that not for long.
pub trait Trail {
    /// Takes one event.
    fn tell(&self, event: &ExecEvent<'_>);

    /// Writes what could not be written yet, at most for `limit`; how many events nobody hears of if this process ends now.
    fn settle(&self, limit: Duration) -> u64 {
        let _ = limit;
        0
    }

    /// Another process has ended with so many that nobody has heard of.
    fn count(&self, events: u64) {
        let _ = events;
    }
}

impl<F: Fn(&ExecEvent<'_>)> Trail for F {
    fn tell(&self, event: &ExecEvent<'_>) {
        self(event);
    }
}

impl Trail for Logger {
    fn tell(&self, event: &ExecEvent<'_>) {
        self.emit(event.line());
    }

    fn settle(&self, limit: Duration) -> u64 {
        if self.waiting() == 0 { 0 } else { self.flush(limit) }
    }

    fn count(&self, events: u64) {
        self.count_lost(events);
    }
}

/// The same for who only has to tell.
pub(super) type Audit<'a> = &'a dyn Trail;

impl ExecEvent<'_> {
    /// The event as it is logged.
    pub fn line(&self) -> Event {
        let about = |level, action, request: &RequestId| Event::new(level, action).field("REQID", request);
        match self {
            Self::Ended { order, profile, unconfined, pid, outcome } => {
                let ended = ended(*order, outcome).maybe("CONFINED", unconfined.then_some("no"));
                ended.maybe("PROFILE", *profile).maybe("PID", *pid)
            }
            Self::Lost { request, script, trace, monitor, signal } => {
                let event = about(Level::Error, "exec", request).field("EXIT", EXIT_NOTHING_RAN);
                let event = event.field("OUTCOME", "lost").field("SCRIPT", script).maybe("TRACE", *trace);
                let reason = format!("{OUTCOME_UNKNOWN}: the monitor was killed by signal {signal}");
                event.field("MONITOR", monitor).field("REASON", reason)
            }
            Self::StatusLost { request, reason } => {
                about(Level::Error, "exec-status-fail", request).field("ERROR", reason)
            }
            Self::Lingering { request } => {
                about(Level::Warning, "exec-lingering", request).field("REASON", "descendants survive being killed")
            }
            Self::Ignored { reason } => Event::new(Level::Warning, "exec-ignored").field("REASON", reason),
            Self::Listening { path, handed_over } => {
                let by = if *handed_over { "init" } else { "executor" };
                Event::new(Level::Info, "exec-start").field("MADE_BY", by).field("SOCKET", path.display())
            }
            Self::Stranger { uid, pid } => {
                Event::new(Level::Warning, "exec-peer-reject").field("PEER_PID", pid).field("PEER_UID", uid)
            }
            Self::Restarted { end } => {
                let (key, number) = match end {
                    End::Exited(code) => ("STATUS", i32::from(*code)),
                    End::Signalled(signal) => ("SIGNAL", *signal),
                };
                Event::new(Level::Error, "exec-restart").field(key, number)
            }
            Self::Upgraded { failure: None } => Event::new(Level::Info, "exec-upgrade")
                .field("RESULT", "ok")
                .field("VERSION", env!("CARGO_PKG_VERSION")),
            Self::Upgraded { failure: Some(text) } => {
                Event::new(Level::Error, "exec-upgrade").field("REASON", text).field("RESULT", "kept the old program")
            }
            Self::Inherited { kept } => {
                Event::new(Level::Warning, "exec-inherited").field("SCRIPTS_HAVE", kept.join(", "))
            }
            Self::TrustLifted => Event::new(Level::Warning, "config-warn").field("KEY", "trusted_paths").field(
                "MSG",
                "trusted_paths is off: whoever may write to a script or a directory above it decides what runs",
            ),
            Self::Made { path } => Event::new(Level::Info, "exec-made").field("PATH", path.display()),
            Self::Reloaded => Event::new(Level::Info, "exec-reload"),
            Self::ReloadFailed { text } => Event::new(Level::Error, "exec-reload-fail").field("ERROR", text),
        }
    }
}

/// `exec`, with the same number as the caller sees and, where the number says too little, the reason.
fn ended(order: Option<&Order>, outcome: &Outcome) -> Event {
    let (level, kind) = match outcome {
        Outcome::Exited { .. } => (Level::Info, "exited"),
        Outcome::Signalled { .. } => (Level::Warning, "signalled"),
        Outcome::TimedOut { .. } => (Level::Warning, "timed-out"),
        Outcome::Cancelled => (Level::Info, "cancelled"),
        Outcome::Refused(_) => (Level::Warning, "refused"),
        Outcome::OutOfMemory { .. } => (Level::Warning, "out-of-memory"),
        Outcome::OutputLimit { .. } => (Level::Warning, "output-limit"),
        Outcome::NotStarted { .. } => (Level::Error, "not-started"),
        Outcome::NotConfined { .. } => (Level::Error, "not-confined"),
    };
    let event = Event::new(level, "exec").field("OUTCOME", kind).field("EXIT", outcome.exit());
    let event = event.maybe("REQID", order.map(Order::request)).maybe("SCRIPT", order.map(Order::script));
    event.maybe("REASON", outcome.reason()).maybe("TRACE", order.and_then(Order::trace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::order::Mode;

    #[test]
    fn an_order_is_one_line_without_its_arguments() {
        let request = RequestId::from_random([1; 8]);
        let order = Order::new(ScriptName::parse("disk").unwrap(), vec!["secret".into()], request, Mode::Attached);
        let order = order.unwrap();
        let outcome = Outcome::TimedOut { limit_ms: 5 };
        let (order, profile, pid) = (Some(&order), Some("default"), Some(7));
        let event = |unconfined| ExecEvent::Ended { order, profile, unconfined, pid, outcome: &outcome };
        let line = "ACTION=exec EXIT=126 OUTCOME=timed-out PID=7 PROFILE=default \
            REASON=\"time limit of 5 ms passed\" REQID=0101010101010101 SCRIPT=disk";
        assert_eq!(event(false).line().line(), line);
        assert_eq!(event(true).line().line(), line.replace("EXIT", "CONFINED=no EXIT"));
    }

    #[test]
    fn a_list_of_faults_stays_one_line() {
        let line = ExecEvent::ReloadFailed { text: "one\ntwo" }.line().line();
        assert!(line.starts_with("ACTION=exec-reload-fail ERROR=") && !line.contains('\n'), "{line}");
    }
}
