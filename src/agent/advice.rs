//! Advice for the operator about a run that failed: that its script met a file system which its profile keeps read-only.
//!
//! The script's own words are all that there is to tell it by: the kernel tells nobody but the caller which of its calls
//! failed with `EROFS`. A script may print in any language (its profile's `environment` may set one), so what is looked
//! for is, beside the C library's English text in any case, the error's name and number, which no language changes and
//! which Python, Node, Rust and many others print. Where neither is there, there is no advice; it is never given without
//! one of them.

use std::sync::{Mutex, PoisonError};

use super::orders::Orders;
use super::pump::Sink;
use super::snapshot::Snapshot;
use crate::store::jobs;
use crate::wire::name::ScriptName;
use crate::wire::run::RunReply;
use crate::wire::stream::{Channel, Draft};

/// How much of standard error's end is looked at, in bytes: what a script fails of is what it says last.
const TAIL: usize = jobs::TAIL;
/// `EROFS` as the C library puts it, in small letters.
const TEXT: &[u8] = b"read-only file system";
/// Its name, and its number (errno(3)) as Python and Rust write it.
const MARKS: [&[u8]; 3] = [b"EROFS", b"[Errno 30]", b"(os error 30)"];

/// What is advised.
const ADVICE: &str = "the script met a read-only file system: add the path to 'writable' in its profile";

/// Hears how a run ends that may be advised about.
#[derive(Debug)]
pub(super) struct Ear {
    /// The end of standard error; none where no advice would be right.
    tail: Option<Mutex<Vec<u8>>>,
}

impl Ear {
    /// For a run of this script.
    pub(super) fn of(orders: &Orders, snapshot: &Snapshot, script: &ScriptName) -> Self {
        Self { tail: is_kept_read_only(orders, snapshot, script).then(Mutex::default) }
    }

    /// The same sink, overheard.
    pub(super) const fn at<'a, S>(&'a self, sink: &'a S) -> Overheard<'a, S> {
        Overheard { sink, ear: self }
    }

    /// Puts the advice into the reply to a run that has failed.
    pub(super) fn advise(&self, mut reply: RunReply) -> RunReply {
        if let Some(tail) = self.tail.as_ref().filter(|_| reply.exit > 0) {
            reply.hint = advice(&tail.lock().unwrap_or_else(PoisonError::into_inner));
        }
        reply
    }

    fn hear(&self, bytes: &[u8]) {
        let Some(tail) = &self.tail else { return };
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        let new = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
        let old = (tail.len() + new.len()).saturating_sub(TAIL).min(tail.len());
        tail.drain(..old);
        tail.extend_from_slice(new);
    }
}

/// A sink that is overheard.
#[derive(Debug)]
pub(super) struct Overheard<'a, S> {
    sink: &'a S,
    ear: &'a Ear,
}

impl<S: Sink> Sink for Overheard<'_, S> {
    async fn take(&self, channel: Channel, draft: &mut Draft) {
        if channel == Channel::Stderr {
            self.ear.hear(draft.output());
        }
        self.sink.take(channel, draft).await;
    }
}

/// Advises about a job that has failed, by the end of its standard error.
pub(super) fn about_job(orders: &Orders, snapshot: &Snapshot, script: &str, tail: &[u8]) -> Option<String> {
    let script = ScriptName::parse(script).ok()?;
    is_kept_read_only(orders, snapshot, &script).then(|| advice(tail)).flatten()
}

/// Whether the script's profile is applied and makes the file system read-only: elsewhere, the advice would be wrong.
fn is_kept_read_only(orders: &Orders, snapshot: &Snapshot, script: &ScriptName) -> bool {
    let profile = snapshot.allowlist.get(script).and_then(|entry| snapshot.settings.profiles.get(entry.profile()));
    orders.applies_profiles() && profile.is_some_and(|profile| profile.writable.is_some())
}

fn advice(tail: &[u8]) -> Option<String> {
    let text = tail.windows(TEXT.len()).any(|words| words.eq_ignore_ascii_case(TEXT));
    let met = text || MARKS.iter().any(|mark| tail.windows(mark.len()).any(|words| words == *mark));
    met.then(|| ADVICE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(pieces: &[&str]) -> Ear {
        let ear = Ear { tail: Some(Mutex::default()) };
        for piece in pieces {
            ear.hear(piece.as_bytes());
        }
        ear
    }

    fn hint(ear: &Ear, exit: i32) -> Option<String> {
        ear.advise(RunReply { exit, ..RunReply::default() }).hint
    }

    #[test]
    fn a_read_only_file_system_is_no_secret_of_one_language() {
        for text in [
            "touch: cannot touch '/etc/x': Read-only file system\n",
            "open /etc/x: read-only file system\n",
            "OSError: [Errno 30] Das Dateisystem ist nur lesbar: '/etc/x'\n",
            "Error: EROFS: nur lesbar, open '/etc/x'\n",
            "nur lesbar (os error 30)\n",
        ] {
            assert!(hint(&heard(&[text]), 1).unwrap().contains("writable"), "{text}");
        }
        for text in ["", "erofs", "[Errno 3]", "(os error 300)", "Permission denied"] {
            assert_eq!(hint(&heard(&[text]), 1), None, "{text}");
        }
    }

    #[test]
    fn no_advice_is_given_about_a_run_that_succeeded_or_never_was() {
        let ear = heard(&["Read-only file system"]);
        assert_eq!([0, -1].map(|exit| hint(&ear, exit)), [None, None]);
        assert!(hint(&ear, 126).is_some());
    }

    #[test]
    fn what_is_remembered_of_a_long_stream_is_its_end_and_no_more() {
        let ear = heard(&["Read-only ", "file system"]);
        assert!(hint(&ear, 1).is_some(), "in two pieces");
        ear.hear(&vec![b'x'; TAIL - 5]);
        assert_eq!(hint(&ear, 1), None);
        for piece in [vec![b'y'; 3 * TAIL], b"EROFS".to_vec()] {
            ear.hear(&piece);
        }
        assert!(hint(&ear, 1).is_some());
        assert_eq!(ear.tail.as_ref().unwrap().lock().unwrap().len(), TAIL);
        let deaf = Ear { tail: None };
        deaf.hear(b"EROFS");
        assert_eq!(hint(&deaf, 1), None);
    }
}
