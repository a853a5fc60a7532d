//! A job's record, in words for its state that its caller knows.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::answer::{self, Answer};
use super::large::Large;
use crate::store::jobs::{JobRecord, JobStatus};
use crate::wire::job::MEDIA_TYPE;
use crate::wire::run::Output;

/// What a caller knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// `running`, `done` and `lost`.
    Ours,
    /// `running` and `done`: for a job of any other state the original's dispatcher would ask for ever.
    Originals,
}

impl Words {
    /// What the caller of a request with these headers knows.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        if accepts(headers, MEDIA_TYPE) { Self::Ours } else { Self::Originals }
    }

    /// The record as its caller can read it.
    #[must_use]
    pub fn tell(self, record: JobRecord) -> JobRecord {
        if self.knows(record.status) { record } else { done(record) }
    }

    /// Whether the caller knows the word for this state.
    #[must_use]
    pub const fn knows(self, status: JobStatus) -> bool {
        match (self, status) {
            (Self::Ours, _) | (Self::Originals, JobStatus::Running | JobStatus::Done) => true,
            (Self::Originals, JobStatus::Lost) => false,
        }
    }

    /// An answer with a job's record, or a part of one.
    pub fn answer<T: serde::Serialize>(self, status: StatusCode, record: &T) -> Answer {
        self.marked(answer::json(status, record))
    }

    /// The same for one that is made while it is sent.
    pub(super) fn large(self, status: StatusCode, record: Large) -> Answer {
        self.marked(answer::large(status, record))
    }

    fn marked(self, mut answer: Answer) -> Answer {
        if self == Self::Ours {
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        }
        answer
    }
}

/// Whether an answer of this type can be read by the caller, who says so by name.
pub(super) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|named| named.trim().eq_ignore_ascii_case(kind))
}

/// A lost job as the original tells of one that has ended. Of such a record its dispatcher keeps exit status and outputs
/// alone: what there is to say must be in standard error, too.
fn done(record: JobRecord) -> JobRecord {
    let why = record.error.clone().unwrap_or_default();
    let mut record = JobRecord { status: JobStatus::Done, ..record };
    if let Some(text) = &record.stderr {
        let exact = record.stderr_base64.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let mut bytes = exact.unwrap_or_else(|| text.clone().into_bytes());
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(format!("ctrl-exec-agent: {why}\n").as_bytes());
        let Output { text, base64, .. } = Output::of(bytes, false);
        (record.stderr, record.stderr_base64) = (Some(text), base64);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect()
    }

    fn lost(stderr: &[u8]) -> JobRecord {
        let running = JobRecord::running("r", "s", "control-1", "2026-11-22T00:00:00Z");
        let (stdout, stderr) = (Output::of(b"begun".to_vec(), false), Output::of(stderr.to_vec(), false));
        running.ended(None, "2026-11-22T00:00:01Z".to_owned(), stdout, stderr)
    }

    #[test]
    fn our_words_are_for_a_caller_who_names_them_and_for_nobody_else() {
        for values in [
            &["application/vnd.ctrl-exec.job+json"][..],
            &["application/json;q=0.5, Application/Vnd.Ctrl-Exec.Job+JSON ; q=1"],
            &["text/html", "application/vnd.ctrl-exec.job+json"],
        ] {
            assert_eq!(Words::of(&headers(values)), Words::Ours, "{values:?}");
        }
        for values in [
            &[][..],
            &["application/json"],
            &["*/*"],
            &["application/*"],
            &["application/vnd.ctrl-exec.job"],
            &["text/html;application/vnd.ctrl-exec.job+json"],
            &["application/vnd.ctrl-exec.run-stream, application/json"],
        ] {
            assert_eq!(Words::of(&headers(values)), Words::Originals, "{values:?}");
        }
    }

    #[test]
    fn a_lost_job_is_done_without_an_exit_status_to_a_caller_who_knows_no_other_word() {
        let told = Words::Originals.tell(lost(b"half a line"));
        assert_eq!((told.status, told.exit, told.stdout.as_deref()), (JobStatus::Done, Some(-1), Some("begun")));
        let stderr = told.stderr.unwrap();
        assert!(stderr.starts_with("half a line\nctrl-exec-agent: the job's end is unknown: "), "{stderr}");
        assert!(stderr.ends_with('\n') && told.stderr_base64.is_none());
        assert!(told.error.unwrap().starts_with("the job's end is unknown: "));
        assert_eq!((told.unknown, told.reason.as_deref()), (true, Some("outcome-unknown")));
        let silent = Words::Originals.tell(lost(b"")).stderr.unwrap();
        assert!(silent.starts_with("ctrl-exec-agent: "), "{silent}");
        // Without its outputs it stays without.
        assert_eq!(Words::Originals.tell(lost(b"x").without_output()).stderr, None);
        assert_eq!(Words::Ours.tell(lost(b"x")), lost(b"x"));
    }

    #[test]
    fn what_is_added_to_the_text_is_added_to_the_exact_bytes() {
        let told = Words::Originals.tell(lost(b"\xff\n"));
        let exact = STANDARD.decode(told.stderr_base64.unwrap()).unwrap();
        assert!(exact.starts_with(b"\xff\nctrl-exec-agent: "), "{exact:?}");
        assert_eq!(String::from_utf8_lossy(&exact), told.stderr.unwrap());
    }

    #[test]
    fn what_the_original_knows_stays_as_it_is() {
        let running = JobRecord::running("r", "s", "control-1", "2026-11-22T00:00:00Z");
        let done = JobRecord { status: JobStatus::Done, exit: Some(3), ..lost(b"bad") };
        for record in [running, done] {
            for words in [Words::Ours, Words::Originals] {
                assert_eq!(words.tell(record.clone()), record);
            }
        }
    }
}
