//! `GET /result/<request id>`: a job's record, to the dispatcher that submitted it and to nobody else.
//!
//! With `?from=N` (and `&stream=stderr`) it carries a piece of the output from that byte on, also while the job runs;
//! with the media type of a streamed run it is followed to its end. A caller that does not say that it knows our words for a
//! job's state is told those of the original (`words`).

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Instead};
use super::follow::{self, Followed};
use super::gate::{Asked, OfPeer, Passed, TrustedPeer};
use super::jobs::{self, Part, Source, read, unreadable, work};
use super::metrics::{RESULT, Verb, Verdict};
use super::state::Agent;
use super::stream::Reader;
use super::under_way::Place;
use super::words::Words;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::jobs::{JobRecord, JobStatus, Jobs, Key};
use crate::sys::clock;
use crate::wire::name::RequestId;
use crate::wire::run::Output;
use crate::wire::stream::whole_characters;

/// Most bytes of a piece.
const PIECE: usize = 1 << 20;

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
    let (key, record) = match find(agent, &store, &peer, id, ["result-miss", "result-deny"]).await {
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
    let Some(part) = part else { return words.answer(StatusCode::OK, &words.tell(record)) };
    let wanted = key.clone();
    match work(&store, move |jobs| piece(jobs, &wanted, (record, words), part)).await {
        Ok(body) => words.answer(StatusCode::OK, &body),
        Err(error) => unreadable(agent, &key, peer.trace(), &error),
    }
}

/// The caller's own job of this id. `actions` are the log's words where there is none, and where it is another's.
pub(super) async fn find(
    agent: &Agent,
    store: &Jobs,
    peer: &TrustedPeer,
    id: RequestId,
    actions: [&'static str; 2],
) -> Result<(Key, JobRecord), Answer> {
    let key = Key { owner: peer.id().clone(), id };
    let wanted = key.clone();
    let found = work(store, move |jobs| jobs.look(&wanted, clock::now())).await;
    let [miss, deny] = actions;
    let event = |level, action| {
        let event = Event::new(level, action).field("DISPATCHER", peer.id()).field("PEER", peer.address());
        event.maybe("TRACE", peer.trace())
    };
    let (event, verdict) = match found {
        Ok(Some(record)) if record.owner == key.owner.as_str() => return Ok((key, record)),
        Ok(Some(_)) => (event(Level::Warning, deny).field("REASON", "not-owner"), Verdict::Denied),
        Ok(None) => (event(Level::Info, miss), Verdict::NotFound),
        Err(error) => return Err(unreadable(agent, &key, peer.trace(), &error)),
    };
    agent.log().emit(event.field("REQID", &key.id));
    let body = json!({ "status": "unknown", "reqid": key.id.as_str() });
    Err(answer::judged(answer::json(StatusCode::NOT_FOUND, &body), verdict))
}

/// The record, with a piece of one output in place of both.
fn piece(jobs: &Jobs, key: &Key, told: (JobRecord, Words), part: Part) -> Result<Value, StoreError> {
    let (record, words) = told;
    let name = part.channel.as_str();
    let mut bytes = read(&Source::open(jobs, key, &record, part.channel)?, part.from, PIECE)?;
    let more = bytes.len() == PIECE;
    if more || record.status == JobStatus::Running {
        bytes.truncate(whole_characters(&bytes));
    }
    let next = part.from.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    let mut body = serde_json::to_value(words.tell(record.without_output())).unwrap_or_default();
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
