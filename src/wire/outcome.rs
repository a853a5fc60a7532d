//! How a run ended: one outcome, from the monitor to the caller.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// The one outcome of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Outcome {
    /// The script ended by itself.
    Exited {
        /// Its exit status, 0 to 255.
        code: u8,
    },
    /// A signal that was not ours ended the script.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// The time limit passed; the script and its descendants are gone.
    TimedOut {
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The caller cancelled or went away; the script and its descendants are gone.
    Cancelled,
    /// The run used up the memory that its profile allows, and the kernel ended it as a whole.
    OutOfMemory {
        /// The limit in bytes.
        limit: u64,
    },
    /// A detached job printed more than may lie on the disk; the script and its descendants are gone, and what it had
    /// printed is cut to the limit.
    OutputLimit {
        /// The limit in bytes, of both outputs together.
        limit: u64,
    },
    /// The order was understood and not permitted; nothing was started.
    Refused(Refusal),
    /// The order was permitted and could not be started: which step failed and why.
    NotStarted {
        /// The step that failed, for example `exec`.
        step: String,
        /// The operating system's reason.
        reason: String,
    },
    /// The order was permitted and its profile's confinement could not be applied, so that nothing was started; or it did not
    /// last ([`UNCOVERED`]), so that the script was ended with its descendants.
    NotConfined {
        /// The step that failed, for example `writable`.
        step: String,
        /// What it was busy with, and the operating system's reason.
        reason: String,
    },
}

/// How a detached job ended, as its monitor notes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Its outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The disk had no room for all that it printed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short_of_room: bool,
}

/// The step of a run that was confined and did not stay so.
pub const UNCOVERED: &str = "uncovered";
/// `exit` of a run that never started or whose end is unknown.
pub const EXIT_NOTHING_RAN: i32 = -1;
/// `reason` of a run that may have started and whose end nobody told: not of one of which nothing ran.
pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
/// `exit` of a script that a signal ended, ours or another's, and of one that could not be confined.
pub const EXIT_KILLED: i32 = 126;
/// `exit` of a script whose exec failed.
pub const EXIT_EXEC_FAILED: i32 = 127;

impl Outcome {
    /// The original's number for this outcome.
    #[must_use]
    pub fn exit(&self) -> i32 {
        match self {
            Self::Exited { code } => i32::from(*code),
            Self::Signalled { .. }
            | Self::TimedOut { .. }
            | Self::Cancelled
            | Self::OutOfMemory { .. }
            | Self::OutputLimit { .. }
            | Self::NotConfined { .. } => EXIT_KILLED,
            Self::Refused(_) => EXIT_NOTHING_RAN,
            Self::NotStarted { .. } => EXIT_EXEC_FAILED,
        }
    }

    /// What the number alone cannot say; `None` for an ordinary exit.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Exited { .. } => None,
            Self::Signalled { signal } => Some(format!("killed by signal {signal}")),
            Self::TimedOut { limit_ms } => Some(format!("time limit of {limit_ms} ms passed")),
            Self::Cancelled => Some("cancelled".to_owned()),
            Self::OutOfMemory { limit } => Some(format!("out of memory: the limit is {limit} bytes")),
            Self::OutputLimit { limit } => Some(format!("output limit of {limit} bytes passed")),
            Self::Refused(refusal) => Some(refusal.code().to_owned()),
            Self::NotStarted { step, reason } => Some(format!("could not start: {step}: {reason}")),
            Self::NotConfined { step, reason } if step == UNCOVERED => {
                Some(format!("ended, as not confined: {reason}"))
            }
            Self::NotConfined { step, reason } => Some(format!("could not confine: {step}: {reason}")),
        }
    }

    /// What the original had on standard error of a script whose program never ran: there alone its callers find why.
    #[must_use]
    pub fn on_stderr(&self) -> Option<String> {
        let told = matches!(self, Self::NotStarted { .. } | Self::NotConfined { .. }) && !self.started();
        let reason = self.reason().filter(|_| told)?;
        Some(format!("executor: {reason}\n"))
    }

    /// Whether the script's program ever ran.
    #[must_use]
    pub fn started(&self) -> bool {
        match self {
            Self::Refused(_) | Self::NotStarted { .. } => false,
            Self::NotConfined { step, .. } => step == UNCOVERED,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_originals() {
        assert_eq!(Outcome::Exited { code: 255 }.exit(), 255);
        assert_eq!(Outcome::Signalled { signal: 9 }.exit(), 126);
        assert_eq!(Outcome::NotStarted { step: "exec".into(), reason: "x".into() }.exit(), 127);
        assert_eq!(Outcome::Refused(Refusal::new("a", "b")).exit(), -1);
        let unconfined = Outcome::NotConfined { step: "caps".into(), reason: "x".into() };
        assert_eq!((unconfined.exit(), unconfined.started()), (126, false));
        assert_eq!(unconfined.reason().unwrap(), "could not confine: caps: x");
        assert_eq!(unconfined.on_stderr().unwrap(), "executor: could not confine: caps: x\n");
        for silent in [Outcome::Exited { code: 126 }, Outcome::Cancelled, Outcome::Refused(Refusal::new("a", "b"))] {
            assert_eq!(silent.on_stderr(), None);
        }
        let memory = Outcome::OutOfMemory { limit: 5 };
        assert_eq!((memory.exit(), memory.started()), (126, true));
        assert!(memory.reason().unwrap().contains("out of memory"));
        let output = Outcome::OutputLimit { limit: 5 };
        assert_eq!((output.exit(), output.started()), (126, true));
        assert_eq!(output.reason().unwrap(), "output limit of 5 bytes passed");
    }

    #[test]
    fn what_is_noted_of_a_job_is_its_outcome_and_what_earlier_versions_noted_is_understood() {
        let outcome = Outcome::Exited { code: 3 };
        let text = serde_json::to_string(&outcome).unwrap();
        let noted = Noted { outcome: outcome.clone(), short_of_room: false };
        assert_eq!(serde_json::to_string(&noted).unwrap(), text);
        assert_eq!(serde_json::from_str::<Noted>(&text).unwrap(), noted);
        let short = serde_json::to_string(&Noted { short_of_room: true, ..noted }).unwrap();
        assert!(serde_json::from_str::<Noted>(&short).unwrap().short_of_room, "{short}");
        assert_eq!(serde_json::from_str::<Outcome>(&short).unwrap(), outcome);
        let refused = Noted { outcome: Outcome::Refused(Refusal::new("a", "b")), short_of_room: true };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<Noted>(&text).unwrap(), refused);
    }

    #[test]
    fn the_json_form_names_its_kind() {
        let text = serde_json::to_string(&Outcome::TimedOut { limit_ms: 5 }).unwrap();
        assert_eq!(text, r#"{"kind":"timed-out","limit_ms":5}"#);
        let refused = Outcome::Refused(Refusal::new("a", "b"));
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), refused);
    }
}
