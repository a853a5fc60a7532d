//! One job's record, in the original's form. Keys that we do not know are kept.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::loose;
use crate::wire::outcome::{EXIT_NOTHING_RAN, OUTCOME_UNKNOWN, Outcome};
use crate::wire::run::Output;

/// Why a job is [`JobStatus::Lost`].
const LOST: &str =
    "the job's end is unknown: its supervisor was killed, or could not write it down, or the host went down";

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobStatus {
    /// It was accepted, and its end is not known yet.
    Running,
    /// It has ended, and how is known.
    Done,
    /// It has ended, and how nobody will ever know. The original knows no such word.
    Lost,
}

impl JobStatus {
    /// The word in JSON and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Lost => "lost",
        }
    }
}

/// What is known of a job: the file on disk, and the answer to a question for its result. `T` is what is read of what the
/// script has printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord<T = String> {
    /// Request id; equals the file name.
    #[serde(deserialize_with = "loose::text")]
    pub reqid: String,
    /// How far it is.
    pub status: JobStatus,
    /// The script's name.
    #[serde(default, deserialize_with = "loose::text")]
    pub script: String,
    /// The dispatcher that submitted it: nobody else may see it.
    #[serde(default, deserialize_with = "loose::text")]
    pub owner: String,
    /// When it was accepted, UTC.
    #[serde(default, deserialize_with = "loose::text")]
    pub started: String,
    /// When its end was noted, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    /// The script's exit status, or the numbers of [`crate::wire::outcome`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<T>,
    /// Standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<T>,
    /// Exact bytes of `stdout` where the text had to replace some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<T>,
    /// Exact bytes of `stderr` where the text had to replace some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<T>,
    /// The streams above are cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// What `exit` alone cannot say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The script may have run, and nobody told its end: not a job of which nothing ran, whose `exit` is the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
    /// What there is to say about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Advice for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Everything else, kept as it was.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl JobRecord<IgnoredAny> {
    /// The record of which the rest was not read.
    pub(super) fn without_output(self) -> JobRecord {
        let Self { status, finished, exit, truncated, reason, unknown, error, hint, extra, .. } = self;
        let record = JobRecord::running(&self.reqid, &self.script, &self.owner, &self.started);
        JobRecord { status, finished, exit, truncated, reason, unknown, error, hint, extra, ..record }
    }
}

impl JobRecord {
    /// A job that is accepted now.
    #[must_use]
    pub fn running(reqid: &str, script: &str, owner: &str, started: &str) -> Self {
        Self {
            reqid: reqid.to_owned(),
            status: JobStatus::Running,
            script: script.to_owned(),
            owner: owner.to_owned(),
            started: started.to_owned(),
            finished: None,
            exit: None,
            stdout: None,
            stderr: None,
            stdout_base64: None,
            stderr_base64: None,
            truncated: false,
            reason: None,
            unknown: false,
            error: None,
            hint: None,
            extra: Map::new(),
        }
    }

    /// The same job at its end: with its outcome, or without one for good.
    #[must_use]
    pub fn ended(self, outcome: Option<&Outcome>, finished: String, stdout: Output, stderr: Output) -> Self {
        let (status, exit, reason) = match outcome {
            Some(outcome) => (JobStatus::Done, outcome.exit(), outcome.reason()),
            None => (JobStatus::Lost, EXIT_NOTHING_RAN, Some(OUTCOME_UNKNOWN.to_owned())),
        };
        Self {
            status,
            finished: Some(finished),
            exit: Some(exit),
            truncated: stdout.truncated || stderr.truncated || matches!(outcome, Some(Outcome::OutputLimit { .. })),
            stdout: Some(stdout.text),
            stderr: Some(stderr.text),
            stdout_base64: stdout.base64,
            stderr_base64: stderr.base64,
            reason,
            unknown: outcome.is_none(),
            error: outcome.is_none().then(|| LOST.to_owned()),
            ..self
        }
    }

    /// The record without what the script printed.
    #[must_use]
    pub fn without_output(self) -> Self {
        Self { stdout: None, stderr: None, stdout_base64: None, stderr_base64: None, ..self }
    }
}
