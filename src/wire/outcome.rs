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
    /// The order was understood and not permitted; nothing was started.
    Refused(Refusal),
    /// The order was permitted and could not be started: which step failed and why.
    NotStarted {
        /// The step that failed, for example `exec`.
        step: String,
        /// The operating system's reason.
        reason: String,
    },
}

/// `exit` of a run that never started or whose end is unknown.
pub const EXIT_NOTHING_RAN: i32 = -1;
/// `exit` of a script that a signal ended, ours or another's.
pub const EXIT_KILLED: i32 = 126;
/// `exit` of a script whose exec failed.
pub const EXIT_EXEC_FAILED: i32 = 127;

impl Outcome {
    /// The original's number for this outcome.
    #[must_use]
    pub fn exit(&self) -> i32 {
        match self {
            Self::Exited { code } => i32::from(*code),
            Self::Signalled { .. } | Self::TimedOut { .. } | Self::Cancelled => EXIT_KILLED,
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
            Self::Refused(refusal) => Some(refusal.code().to_owned()),
            Self::NotStarted { step, reason } => Some(format!("could not start: {step}: {reason}")),
        }
    }

    /// Whether the script's program ever ran.
    #[must_use]
    pub const fn started(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::NotStarted { .. })
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
