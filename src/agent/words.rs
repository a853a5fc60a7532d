//! A job's record, in words for its state that its caller knows.

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, StatusCode};

use super::answer::{self, Answer};
use super::large::Large;
use crate::store::jobs::{JobRecord, JobStatus};
use crate::wire::job::MEDIA_TYPE;

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
        match self {
            Self::Ours => record,
            Self::Originals => record.in_words_of_the_original(),
        }
    }

    /// Whether the caller is told of a job in this state what stands on file. A lost one stands there in the original's words,
    /// unless an earlier version of ours has written it.
    #[must_use]
    pub const fn are_on_file(status: JobStatus) -> bool {
        matches!(status, JobStatus::Running | JobStatus::Done)
    }

    /// Whether the caller is told of a job in this state what we call it.
    #[must_use]
    pub fn knows(self, status: JobStatus) -> bool {
        self == Self::Ours || Self::are_on_file(status)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (ACCEPT, HeaderValue::from_static(value))).collect()
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
}
