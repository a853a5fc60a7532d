//! What every request about a job needs: the store, the way to it that holds up nobody, and a job's output.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::advice;
use super::answer::{self, Answer};
use super::metrics::End;
use super::snapshot::Snapshot;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::jobs::{Adviser, JobRecord, Jobs, Key, Witness};
use crate::sys::file::FileError;
use crate::wire::causes;
use crate::wire::outcome::OUTCOME_UNKNOWN;
use crate::wire::stream::Channel;
use crate::wire::trace::TraceParent;

/// What is there is no answer, and not nothing either.
pub(super) fn unreadable(agent: &Agent, key: &Key, trace: Option<&TraceParent>, error: &StoreError) -> Answer {
    store_failed(agent, key, trace, error);
    let body = json!({ "status": "error", "reqid": key.id.as_str(), "error": "the job's record cannot be read" });
    answer::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// The agent's jobs. Their ends are counted.
pub(super) fn store(agent: &Arc<Agent>, snapshot: &Snapshot) -> Jobs {
    let jobs = Jobs::new(agent.runs().to_path_buf(), snapshot.settings.max_output);
    let (agent, advising) = (Arc::clone(agent), Arc::clone(agent));
    let jobs = jobs.advised(Adviser::new(move |script, tail| {
        advice::about_job(advising.orders(), &advising.snapshot(), script, tail)
    }));
    jobs.witnessed(Witness::new(move |record, outcome| {
        if outcome.is_none() {
            agent.log().emit(lost(record));
        }
        let end = outcome.map_or(Some(End::Lost), |outcome| End::of(outcome).ok());
        // When a job ended of which nobody knows, nobody knows either.
        let time = outcome.and_then(|_| took(record));
        if let Some(end) = end {
            agent.metrics.ran(&agent.snapshot().allowlist, &record.script, end, time);
        }
    }))
}

/// The line about a job of which nobody will ever know how it ended.
fn lost(record: &JobRecord) -> Event {
    let event = Event::new(Level::Error, "run-async-lost").field("DISPATCHER", &record.owner);
    event.field("REASON", OUTCOME_UNKNOWN).field("REQID", &record.reqid).field("SCRIPT", &record.script)
}

/// How long a job took by its record. None where the clock was set back meanwhile.
fn took(record: &JobRecord) -> Option<Duration> {
    let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).ok();
    Duration::try_from(at(record.finished.as_deref()?)? - at(&record.started)?).ok()
}

/// Work on the store, where waiting for the disk or its lock holds up nobody else.
pub(super) async fn work<T: Send + 'static>(
    jobs: &Jobs,
    work: impl FnOnce(&Jobs) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = jobs.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    // A panic, which aborts what ships.
    done.unwrap_or_else(|error| Err(FileError::new(Path::new("jobs"), "use", io::Error::other(error)).into()))
}

/// The store is in trouble: what the caller may know is in the answer, the rest is for the operator.
pub(super) fn store_failed(agent: &Agent, key: &Key, trace: Option<&TraceParent>, error: &StoreError) {
    let event = Event::new(Level::Error, "async-store-fail").field("ERROR", causes::on_one_line(error));
    agent.log().emit(event.field("REQID", &key.id).maybe("TRACE", trace));
}

/// From where on an output is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub channel: Channel,
    /// The first byte, counted from 0.
    pub from: u64,
}

impl Part {
    /// Everything.
    #[must_use]
    pub fn both() -> Vec<Self> {
        [Channel::Stdout, Channel::Stderr].map(|channel| Self { channel, from: 0 }).to_vec()
    }

    /// `from=N`, `stream=stdout` or `stream=stderr`, or both, in any order.
    #[must_use]
    pub fn parse(query: &str) -> Option<Self> {
        let mut part = Self { channel: Channel::Stdout, from: 0 };
        for pair in query.split('&') {
            match pair.split_once('=')? {
                ("from", number) => part.from = number.parse().ok()?,
                ("stream", "stdout") => part.channel = Channel::Stdout,
                ("stream", "stderr") => part.channel = Channel::Stderr,
                _ => return None,
            }
        }
        Some(part)
    }
}

/// A file of which nobody needs to know more.
const OUTPUT: &str = "what a script has printed";

/// Where an output is: on file, or in the record of a job of the original's.
#[derive(Debug)]
pub(super) enum Source {
    /// As the script writes it.
    File(File),
    /// As it was recorded.
    Recorded(Vec<u8>),
}

impl Source {
    pub(super) fn open(jobs: &Jobs, key: &Key, channel: Channel) -> Result<Self, StoreError> {
        if let Some(file) = jobs.output(key, channel)? {
            return Ok(Self::File(file));
        }
        let Some(record) = jobs.whole(key)? else { return Ok(Self::Recorded(Vec::new())) };
        let (text, base64) = match channel {
            Channel::Stdout => (record.stdout, record.stdout_base64),
            Channel::Stderr => (record.stderr, record.stderr_base64),
        };
        let exact = base64.and_then(|text| STANDARD.decode(text).ok());
        Ok(Self::Recorded(exact.unwrap_or_else(|| text.unwrap_or_default().into_bytes())))
    }
}

impl Source {
    /// How many bytes there are now.
    pub(super) fn length(&self) -> Result<u64, StoreError> {
        match self {
            Self::Recorded(bytes) => Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::File(file) => {
                let facts = file.metadata();
                facts
                    .map(|facts| facts.len())
                    .map_err(|error| FileError::new(Path::new(OUTPUT), "examine", error).into())
            }
        }
    }
}

/// At most `most` bytes from a place on; none at the end.
pub(super) fn read(source: &Source, from: u64, most: usize) -> Result<Vec<u8>, StoreError> {
    match source {
        Source::Recorded(bytes) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            Ok(bytes.iter().skip(from).take(most).copied().collect())
        }
        // Behind every end: the kernel counts files in signed numbers, and calls more a fault (pread(2)).
        Source::File(_) if i64::try_from(from.saturating_add(u64::try_from(most).unwrap_or(u64::MAX))).is_err() => {
            Ok(Vec::new())
        }
        Source::File(file) => {
            let mut bytes = vec![0; most];
            let mut filled = 0;
            while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
                let place = from.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
                match file.read_at(room, place) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Err(FileError::new(Path::new(OUTPUT), "read", error).into());
                    }
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_named_in_any_order_and_nothing_else_is_taken_for_one() {
        let part = |channel, from| Some(Part { channel, from });
        assert_eq!(Part::parse("from=7"), part(Channel::Stdout, 7));
        assert_eq!(Part::parse("stream=stderr&from=0"), part(Channel::Stderr, 0));
        assert_eq!(Part::parse("from=18446744073709551615"), part(Channel::Stdout, u64::MAX));
        for query in ["", "from", "from=", "from=-1", "from=x", "stream=both", "from=1&", "offset=1"] {
            assert_eq!(Part::parse(query), None, "{query}");
        }
    }

    #[test]
    fn what_is_asked_for_behind_every_end_is_nothing_and_no_fault() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, b"abc").unwrap();
        for source in [Source::File(file), Source::Recorded(b"abc".to_vec())] {
            for (from, expected) in [(2, "c"), (3, ""), (1 << 62, ""), (i64::MAX as u64, ""), (u64::MAX, "")] {
                assert_eq!(read(&source, from, 10).unwrap(), expected.as_bytes(), "{from}");
            }
        }
    }
}
