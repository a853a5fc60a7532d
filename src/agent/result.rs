//! `GET /result/<request id>`: a job's record, to the dispatcher that submitted it and to nobody else.
//!
//! With `?from=N` (and `&stream=stderr`) it carries a piece of the output from that byte on, also while the job runs;
//! with the media type of a streamed run it is followed to its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer};
use super::detached::store_failed;
use super::follow;
use super::gate::TrustedPeer;
use super::snapshot::Snapshot;
use super::state::{Agent, Place};
use super::stream::OutputBody;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::jobs::{JobRecord, JobStatus, Jobs, Key};
use crate::sys::clock;
use crate::sys::file::FileError;
use crate::wire::name::RequestId;
use crate::wire::run::Output;
use crate::wire::stream::Channel;

/// How its paths begin.
pub const PATH: &str = "/result/";
/// Most bytes of a piece.
const PIECE: usize = 1 << 20;

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
    fn parse(query: &str) -> Option<Self> {
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

/// Answers a question for a result.
pub async fn result(agent: &Arc<Agent>, peer: &TrustedPeer, path: &str, streamed: bool, place: Place) -> Answer {
    let wanted = path.strip_prefix(PATH).unwrap_or_default();
    let (id, query) = wanted.split_once('?').map_or((wanted, None), |(id, query)| (id, Some(query)));
    let Ok(id) = RequestId::parse(id) else { return answer::error(StatusCode::NOT_FOUND, "not found") };
    let part = query.map(Part::parse);
    if part == Some(None) {
        return answer::error(StatusCode::BAD_REQUEST, "use from=N and stream=stdout or stream=stderr");
    }
    let part = part.flatten();
    let (key, record) = match find(agent, peer, id, ["result-miss", "result-deny"]).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let event = Event::new(Level::Info, "result").field("DISPATCHER", peer.id()).field("PEER", peer.address());
    agent.log().emit(event.field("REQID", &key.id).field("STATUS", record.status.as_str()));
    let jobs = jobs(&agent.snapshot());
    if streamed {
        let (agent, parts) = (Arc::clone(agent), part.map_or_else(Part::both, |part| vec![part]));
        return answer::stream(OutputBody::start(|outlet| follow::follow(agent, jobs, key, parts, outlet, place)));
    }
    let Some(part) = part else { return answer::json(StatusCode::OK, &record) };
    let wanted = key.clone();
    match work(&jobs, move |jobs| piece(jobs, &wanted, &record, part)).await {
        Ok(body) => answer::json(StatusCode::OK, &body),
        Err(error) => unreadable(agent, &key, &error),
    }
}

/// The caller's own job of this id. `actions` are the log's words where there is none, and where it is another's.
pub(super) async fn find(
    agent: &Agent,
    peer: &TrustedPeer,
    id: RequestId,
    actions: [&'static str; 2],
) -> Result<(Key, JobRecord), Answer> {
    let key = Key { owner: peer.id().clone(), id };
    let wanted = key.clone();
    let found = work(&jobs(&agent.snapshot()), move |jobs| jobs.look(&wanted, clock::now())).await;
    let [miss, deny] = actions;
    let event = |level, action| Event::new(level, action).field("DISPATCHER", peer.id()).field("PEER", peer.address());
    let event = match found {
        Ok(Some(record)) if record.owner == key.owner.as_str() => return Ok((key, record)),
        Ok(Some(_)) => event(Level::Warning, deny).field("REASON", "not-owner"),
        Ok(None) => event(Level::Info, miss),
        Err(error) => return Err(unreadable(agent, &key, &error)),
    };
    agent.log().emit(event.field("REQID", &key.id));
    let body = json!({ "status": "unknown", "reqid": key.id.as_str() });
    Err(answer::json(StatusCode::NOT_FOUND, &body))
}

/// What is there is no answer, and not nothing either.
pub(super) fn unreadable(agent: &Agent, key: &Key, error: &StoreError) -> Answer {
    store_failed(agent, key, error);
    let body = json!({ "status": "error", "reqid": key.id.as_str(), "error": "the job's record cannot be read" });
    answer::json(StatusCode::INTERNAL_SERVER_ERROR, &body)
}

/// The agent's jobs, as its configuration places them now.
pub(super) fn jobs(snapshot: &Snapshot) -> Jobs {
    Jobs::new(snapshot.settings.async_runs_dir.to_path_buf(), snapshot.settings.max_output)
}

/// Work on the store, where waiting for the disk or its lock holds up nobody else.
pub(super) async fn work<T: Send + 'static>(
    jobs: &Jobs,
    work: impl FnOnce(&Jobs) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let store = jobs.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    // A panic, which aborts what ships.
    done.unwrap_or_else(
        |error| Err(FileError::new(std::path::Path::new("jobs"), "use", io::Error::other(error)).into()),
    )
}

/// The record, with a piece of one output in place of both.
fn piece(jobs: &Jobs, key: &Key, record: &JobRecord, part: Part) -> Result<Value, StoreError> {
    let name = part.channel.as_str();
    let mut bytes = read(&Source::open(jobs, key, record, part.channel)?, part.from, PIECE)?;
    let more = bytes.len() == PIECE;
    if more || record.status == JobStatus::Running {
        bytes.truncate(whole_characters(&bytes));
    }
    let next = part.from.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let mut body = serde_json::to_value(record.clone().without_output()).unwrap_or_default();
    let Output { text, base64, .. } = Output::of(bytes, false);
    if let Some(fields) = body.as_object_mut() {
        fields.insert("stream".to_owned(), name.into());
        fields.insert("from".to_owned(), part.from.into());
        fields.insert("next".to_owned(), next.into());
        fields.insert("more".to_owned(), more.into());
        fields.insert(name.to_owned(), text.into());
        fields.extend(base64.map(|base64| (format!("{name}_base64"), base64.into())));
    }
    Ok(body)
}

/// All but a character at the end that has not arrived whole (at most three bytes).
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// Where an output is: on file, or in the record of a job of the original's.
pub(super) enum Source {
    /// As the script writes it.
    File(File),
    /// As it was recorded.
    Recorded(Vec<u8>),
}

impl Source {
    pub(super) fn open(jobs: &Jobs, key: &Key, record: &JobRecord, channel: Channel) -> Result<Self, StoreError> {
        if let Some(file) = jobs.output(key, channel)? {
            return Ok(Self::File(file));
        }
        let (text, base64) = match channel {
            Channel::Stdout => (&record.stdout, &record.stdout_base64),
            Channel::Stderr => (&record.stderr, &record.stderr_base64),
        };
        let exact = base64.as_ref().and_then(|text| STANDARD.decode(text).ok());
        Ok(Self::Recorded(exact.unwrap_or_else(|| text.clone().unwrap_or_default().into_bytes())))
    }
}

/// At most `most` bytes from a place on; none at the end.
pub(super) fn read(source: &Source, from: u64, most: usize) -> Result<Vec<u8>, StoreError> {
    match source {
        Source::Recorded(bytes) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            Ok(bytes.iter().skip(from).take(most).copied().collect())
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
                        return Err(FileError::new(std::path::Path::new("a job's output"), "read", error).into());
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
    fn a_character_is_not_cut_in_two() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(b"a\xc3"), 1);
        assert_eq!(whole_characters(b"a\xff"), 2);
    }
}
