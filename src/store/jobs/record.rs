//! One job's record, in the original's form. Keys that we do not know are kept.
//!
//! The original knows two states: `running` and `done`. Its agent hands a record out as it stands in the file, also one that
//! we have written before it took our place, and for any other state its dispatcher would ask until the record is forgotten. So
//! a lost job stands there as `done` with the exit status -1, which is no script's; and since of such a record that dispatcher
//! keeps exit status and outputs alone, what there is to say is added to standard error. The key `lost` holds what was added,
//! so that whoever knows it can tell the two apart, and what the script has printed from what it has not.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::store::loose;
use crate::wire::outcome::{EXIT_NOTHING_RAN, OUTCOME_UNKNOWN, Outcome};
use crate::wire::run::Output;

/// In a record that says `done`: it does not for want of a better word, and the value was added to standard error.
const ADDED: &str = "lost";
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
    /// It has ended, and how nobody will ever know. The original knows no such word, so that on file there is another.
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
        JobRecord { status, finished, exit, truncated, reason, unknown, error, hint, extra, ..record }.as_meant()
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

    /// The record as the original can read it: a lost job as one that has ended. Every other record is that already.
    #[must_use]
    pub fn in_words_of_the_original(self) -> Self {
        if self.status != JobStatus::Lost {
            return self;
        }
        let added = self.added(self.printed().last().is_none_or(|last| *last == b'\n'));
        let printed = self.stderr.is_some().then(|| [self.printed(), added.as_bytes().to_vec()].concat());
        self.saying_done(added).printing(printed)
    }

    /// What is added to the standard error of a lost job, whose last line is `whole` or not.
    pub(super) fn added(&self, whole: bool) -> String {
        let why = self.error.as_deref().unwrap_or(LOST);
        format!("{}ctrl-exec-agent: {why}\n", if whole { "" } else { "\n" })
    }

    /// The same record in the original's words, its output as it is.
    pub(super) fn saying_done(mut self, added: String) -> Self {
        self.extra.insert(ADDED.to_owned(), added.into());
        Self { status: JobStatus::Done, ..self }
    }

    /// The record as it was before [`JobRecord::in_words_of_the_original`].
    #[must_use]
    pub fn as_meant(mut self) -> Self {
        let Some(Value::String(added)) = self.extra.get(ADDED).filter(|_| self.status == JobStatus::Done) else {
            return self;
        };
        let added = added.clone();
        self.extra.remove(ADDED);
        let printed = self.printed();
        let printed =
            self.stderr.is_some().then(|| printed.strip_suffix(added.as_bytes()).unwrap_or(&printed).to_vec());
        Self { status: JobStatus::Lost, ..self }.printing(printed)
    }

    /// The exact bytes of standard error.
    fn printed(&self) -> Vec<u8> {
        let (text, base64) = (self.stderr.clone().unwrap_or_default(), self.stderr_base64.clone());
        Output { text, base64, truncated: false }.into_bytes()
    }

    /// With this standard error.
    fn printing(self, stderr: Option<Vec<u8>>) -> Self {
        let Some(Output { text, base64, .. }) = stderr.map(|bytes| Output::of(bytes, false)) else { return self };
        Self { stderr: Some(text), stderr_base64: base64, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(stderr: &[u8]) -> JobRecord {
        let running = JobRecord::running("r", "s", "control-1", "2026-11-22T00:00:00Z");
        let (stdout, stderr) = (Output::of(b"begun".to_vec(), false), Output::of(stderr.to_vec(), false));
        running.ended(None, "2026-11-22T00:00:01Z".to_owned(), stdout, stderr)
    }

    #[test]
    fn a_lost_job_is_done_without_an_exit_status_in_words_of_the_original() {
        let told = lost(b"half a line").in_words_of_the_original();
        assert_eq!((told.status, told.exit, told.stdout.as_deref()), (JobStatus::Done, Some(-1), Some("begun")));
        let stderr = told.stderr.unwrap();
        assert!(stderr.starts_with("half a line\nctrl-exec-agent: the job's end is unknown: "), "{stderr}");
        assert!(stderr.ends_with('\n') && told.stderr_base64.is_none());
        assert!(told.error.unwrap().starts_with("the job's end is unknown: "));
        assert_eq!((told.unknown, told.reason.as_deref()), (true, Some("outcome-unknown")));
        let silent = lost(b"").in_words_of_the_original().stderr.unwrap();
        assert!(silent.starts_with("ctrl-exec-agent: "), "{silent}");
        // Without its outputs it stays without.
        assert_eq!(lost(b"x").without_output().in_words_of_the_original().stderr, None);
    }

    #[test]
    fn what_is_added_to_the_text_is_added_to_the_exact_bytes() {
        let told = lost(b"\xff\n").in_words_of_the_original();
        assert!(told.stderr_base64.is_some());
        let exact = told.printed();
        assert!(exact.starts_with(b"\xff\nctrl-exec-agent: "), "{exact:?}");
        assert_eq!(String::from_utf8_lossy(&exact), told.stderr.unwrap());
    }

    #[test]
    fn what_was_told_to_the_original_is_understood_again_to_the_last_byte() {
        for stderr in [&b""[..], b"\n", b"half a line", b"\xff", b"\xff\n", "caf\u{e9}\n".as_bytes()] {
            let text = serde_json::to_string(&lost(stderr).in_words_of_the_original()).unwrap();
            assert!(!text.contains(r#""status":"lost""#), "{text}");
            let read: JobRecord = serde_json::from_str(&text).unwrap();
            assert_eq!(read.as_meant(), lost(stderr), "{text}");
            let read: JobRecord<IgnoredAny> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.without_output(), lost(stderr).without_output());
        }
    }

    #[test]
    fn every_other_record_says_what_it_means() {
        let running = JobRecord::running("r", "s", "control-1", "2026-11-22T00:00:00Z");
        // Whoever has written that.
        let done = JobRecord { status: JobStatus::Done, error: Some("why".to_owned()), ..lost(b"bad") };
        for record in [running, done] {
            assert_eq!(record.clone().in_words_of_the_original(), record);
            assert_eq!(record.clone().as_meant(), record);
        }
        // As versions of ours wrote it that minded no original.
        let text = serde_json::to_string(&lost(b"bad")).unwrap();
        let read: JobRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read.as_meant(), lost(b"bad"));
    }
}
