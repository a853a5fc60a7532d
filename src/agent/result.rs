//! `GET /result/<request id>`: a job's record, to the dispatcher that submitted it and to nobody else.
//!
//! With `?from=N` (and `&stream=stderr`) it carries a piece of the output from that byte on, also while the job runs;
//! with the media type of a streamed run it is followed to its end. A caller that does not say that it knows our words for a
//! job's state is told those of the original (`words`).

use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, Instead};
use super::excerpt::{Excerpt, Source, read};
use super::follow::{self, Followed};
use super::gate::{Asked, OfPeer, Passed, TrustedPeer};
use super::jobs::{self, Part, unreadable, work};
use super::large::Large;
use super::metrics::{RESULT, Verb, Verdict};
use super::spool::Spool;
use super::state::Agent;
use super::stream::Reader;
use super::under_way::Place;
use super::words::Words;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::jobs::{JobRecord, JobStatus, Jobs, Kept, Key};
use crate::sys::clock;
use crate::wire::name::RequestId;
use crate::wire::run::Output;
use crate::wire::stream::Channel;

/// Most bytes of a piece.
const PIECE: u64 = 1 << 20;

/// How a caller wants a job told.
#[derive(Debug)]
pub enum Form {
    /// As it is now, in these words.
    Whole(Words),
    /// As it goes on, to its end. Who can read that is one of us, and knows our words.
    Followed(Reader),
}

/// The question: the job's id, and which piece of which output.
#[derive(Debug)]
pub struct Wanted(RequestId, Option<Part>);

impl OfPeer for Wanted {
    const VERB: Verb = Verb::Result;
}

/// Reads a request.
///
/// # Errors
/// The answer to what is none.
pub fn ask(path: &str) -> Result<Wanted, Instead> {
    let wanted = path.strip_prefix(RESULT).unwrap_or_default();
    let (id, query) = wanted.split_once('?').map_or((wanted, None), |(id, query)| (id, Some(query)));
    let id = RequestId::parse(id).map_err(|_| answer::error(StatusCode::NOT_FOUND, "not found"))?;
    let part = query.map(Part::parse);
    if part == Some(None) {
        let text = "use from=N and stream=stdout or stream=stderr";
        return Err(answer::error(StatusCode::BAD_REQUEST, text).into());
    }
    Ok(Wanted(id, part.flatten()))
}

/// Answers a question for a result.
pub async fn result(agent: &Arc<Agent>, passed: Passed<Wanted>, form: Form, place: Place) -> Answer {
    let (Asked { peer, snapshot, ask: Wanted(id, part) }, ()) = passed.into_parts();
    let store = jobs::store(agent, &snapshot);
    let (key, (record, kept)) = match find(agent, &store, &peer, id, ["result-miss", "result-deny"]).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let event = Event::new(Level::Info, "result").field("DISPATCHER", peer.id()).field("PEER", peer.address());
    let event = event.maybe("TRACE", peer.trace());
    agent.log().emit(event.field("REQID", &key.id).field("STATUS", record.status.as_str()));
    let words = match form {
        Form::Whole(words) => words,
        Form::Followed(reader) => {
            let parts = part.map_or_else(Part::both, |part| vec![part]);
            let followed =
                Followed { agent: Arc::clone(agent), store, key, parts, trace: peer.trace().cloned(), place };
            return follow::answer(followed, reader);
        }
    };
    let (wanted, spool) = (key.clone(), Spool::new(snapshot.settings.async_runs_dir.to_path_buf()));
    let told = work(&store, move |jobs| match part {
        Some(part) => piece(jobs, &wanted, (record, words), part),
        None => whole(jobs, &wanted, (record, kept), (words, spool)),
    });
    match told.await {
        Ok(told) => words.large(StatusCode::OK, told),
        Err(error) => unreadable(agent, &key, peer.trace(), &error),
    }
}

/// The caller's own job of this id, without output, and what it keeps of that. `actions` are the log's words where there is none,
/// and where it is another's.
pub(super) async fn find(
    agent: &Agent,
    store: &Jobs,
    peer: &TrustedPeer,
    id: RequestId,
    actions: [&'static str; 2],
) -> Result<(Key, (JobRecord, Kept)), Answer> {
    let key = Key { owner: peer.id().clone(), id };
    let wanted = key.clone();
    let found = work(store, move |jobs| jobs.look_open(&wanted, clock::now())).await;
    let [miss, deny] = actions;
    let event = |level, action| {
        let event = Event::new(level, action).field("DISPATCHER", peer.id()).field("PEER", peer.address());
        event.maybe("TRACE", peer.trace())
    };
    let (event, verdict) = match found {
        Ok(Some(found)) if found.0.owner == key.owner.as_str() => return Ok((key, found)),
        Ok(Some(_)) => (event(Level::Warning, deny).field("REASON", "not-owner"), Verdict::Denied),
        Ok(None) => (event(Level::Info, miss), Verdict::NotFound),
        Err(error) => return Err(unreadable(agent, &key, peer.trace(), &error)),
    };
    agent.log().emit(event.field("REQID", &key.id));
    let body = json!({ "status": "unknown", "reqid": key.id.as_str() });
    Err(answer::judged(answer::json(StatusCode::NOT_FOUND, &body), verdict))
}

/// The record with everything that it keeps. What its caller cannot read as it is on file is told anew: one at a time, since
/// that is in memory for a moment.
fn whole(jobs: &Jobs, key: &Key, told: (JobRecord, Kept), to: (Words, Spool)) -> Result<Large, StoreError> {
    static TOLD_ANEW: Mutex<()> = Mutex::new(());
    let ((record, kept), (words, spool)) = (told, to);
    let malformed = |source| StoreError::Malformed { path: "a job's record".into(), source };
    let anew = |record: JobRecord| {
        let told = serde_json::to_vec(&words.tell(record)).map_err(malformed)?;
        Large::raw(spool.keep(told)?)
    };
    let file = match kept {
        Kept::OnRecord(file) => Source::File(file),
        Kept::Beside(lengths) if words.knows(record.status) => {
            let excerpts = excerpts(jobs, key, lengths)?;
            let fields = serde_json::to_vec(&words.tell(record.without_output())).map_err(malformed)?;
            let outputs = excerpts.into_iter().map(|(channel, excerpt)| (channel.as_str(), excerpt));
            return Large::object(outputs.collect(), &fields);
        }
        Kept::Beside(lengths) => {
            let _turn = TOLD_ANEW.lock().unwrap_or_else(PoisonError::into_inner);
            return anew(with_outputs(record, excerpts(jobs, key, lengths)?)?);
        }
    };
    let size = file.length()?;
    if Words::are_on_file(record.status) {
        return Large::raw(Excerpt::of(Arc::new(file), 0, size));
    }
    let _turn = TOLD_ANEW.lock().unwrap_or_else(PoisonError::into_inner);
    let bytes = read(&file, 0, usize::try_from(size).unwrap_or(usize::MAX))?;
    let record: JobRecord = serde_json::from_slice(&bytes).map_err(malformed)?;
    drop(bytes);
    anew(record.as_meant())
}

/// What a record would hold of the outputs, had there been room for it.
fn excerpts(jobs: &Jobs, key: &Key, lengths: [u64; 2]) -> Result<Vec<(Channel, Excerpt)>, StoreError> {
    let channels = [Channel::Stdout, Channel::Stderr].into_iter().zip(lengths);
    let excerpt = |(channel, length)| {
        Source::open(jobs, key, channel).map(|source| (channel, Excerpt::of(Arc::new(source), 0, length)))
    };
    channels.map(excerpt).collect()
}

/// The record that holds them.
fn with_outputs(mut record: JobRecord, excerpts: Vec<(Channel, Excerpt)>) -> Result<JobRecord, StoreError> {
    for (channel, excerpt) in excerpts {
        let bytes = excerpt.read(0, usize::try_from(excerpt.length()).unwrap_or(usize::MAX))?;
        let Output { text, base64, .. } = Output::of(bytes, false);
        match channel {
            Channel::Stdout => (record.stdout, record.stdout_base64) = (Some(text), base64),
            Channel::Stderr => (record.stderr, record.stderr_base64) = (Some(text), base64),
        }
    }
    Ok(record)
}

/// The record, with a piece of one output in place of both.
fn piece(jobs: &Jobs, key: &Key, told: (JobRecord, Words), part: Part) -> Result<Large, StoreError> {
    let (record, words) = told;
    let name = part.channel.as_str();
    let source = Source::open(jobs, key, part.channel)?;
    let length = source.length()?.saturating_sub(part.from).min(PIECE);
    let more = length == PIECE;
    let mut excerpt = Excerpt::of(Arc::new(source), part.from, length);
    if more || record.status == JobStatus::Running {
        excerpt = excerpt.whole_characters()?;
    }
    let next = part.from.saturating_add(excerpt.length());
    let mut body = serde_json::to_value(words.tell(record.without_output())).unwrap_or_default();
    if let Some(fields) = body.as_object_mut() {
        fields.insert("stream".to_owned(), name.into());
        fields.insert("from".to_owned(), part.from.into());
        fields.insert("next".to_owned(), next.into());
        fields.insert("more".to_owned(), more.into());
    }
    Large::object(vec![(name, excerpt)], body.to_string().as_bytes())
}
