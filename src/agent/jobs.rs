//! What every request about a job needs: the store, the way to it that holds up nobody, and a job's output.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

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
use crate::wire::outcome::{Noted, OUTCOME_UNKNOWN};
use crate::wire::stream::Channel;
use crate::wire::trace::TraceParent;

/// What there is cannot be told, and is not nothing either.
pub(super) fn unreadable(agent: &Agent, key: &Key, trace: Option<&TraceParent>, error: &StoreError) -> Answer {
    store_failed(agent, key, trace, error);
    let text = match error {
        StoreError::Malformed { .. } => "the job's record cannot be read",
        StoreError::File(_) => "the agent's store of jobs cannot be used: its log says why",
    };
    let body = json!({ "status": "error", "reqid": key.id.as_str(), "error": text });
    answer::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// The agent's jobs. Their ends are counted.
pub(super) fn store(agent: &Arc<Agent>, snapshot: &Snapshot) -> Jobs {
    let jobs = Jobs::new(agent.runs().to_path_buf(), snapshot.settings.max_output);
    let (agent, advising, failing) = (Arc::clone(agent), Arc::clone(agent), Arc::clone(agent));
    let jobs = jobs.marked(agent.orders().family()).advised(Adviser::new(move |script, tail| {
        advice::about_job(advising.orders(), &advising.snapshot(), script, tail)
    }));
    let unrecorded = move |record: &JobRecord, error: &StoreError| {
        if failing.unrecorded.is_new(record) {
            let event = Event::new(Level::Error, "async-store-fail").field("ERROR", causes::on_one_line(error));
            failing.log().emit(event.field("REQID", &record.reqid));
        }
    };
    let ended = move |record: &JobRecord, noted: Option<&Noted>| {
        agent.unrecorded.forget(record);
        let outcome = noted.map(|noted| &noted.outcome);
        if noted.is_some_and(|noted| noted.short_of_room) {
            agent.log().emit(cut(record));
        }
        if outcome.is_none() {
            agent.log().emit(lost(record));
        }
        let end = outcome.map_or(Some(End::Lost), |outcome| End::of(outcome).ok());
        // When a job ended of which nobody knows, nobody knows either.
        let time = outcome.and_then(|_| took(record));
        if let Some(end) = end {
            agent.metrics.ran(&agent.snapshot().allowlist, &record.script, end, time);
        }
    };
    jobs.witnessed(Witness::new(ended, unrecorded))
}

/// The line about a job of which nobody will ever know how it ended.
fn lost(record: &JobRecord) -> Event {
    let event = Event::new(Level::Error, "run-async-lost").field("DISPATCHER", &record.owner);
    event.field("REASON", OUTCOME_UNKNOWN).field("REQID", &record.reqid).field("SCRIPT", &record.script)
}

/// The line about a job that has printed more than there was room for.
fn cut(record: &JobRecord) -> Event {
    let event = Event::new(Level::Warning, "output-cut").field("DISPATCHER", &record.owner);
    let event = event.field("ERROR", "the disk of async_runs_dir had no room for all that it printed");
    event.field("REQID", &record.reqid).field("SCRIPT", &record.script)
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
}
