//! `POST /cancel/<request id>`: ends a job and everything it has started, for the dispatcher that submitted it.
//!
//! The job's monitor listens at a FIFO of the job's own, so that this works whoever has started it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, Instead};
use super::gate::{Asked, OfPeer, Passed};
use super::metrics::{CANCEL, Verb};
use super::state::Agent;
use super::words::Words;
use super::{jobs, result};
use crate::audit::{Event, Level};
use crate::store::jobs::{JobRecord, JobStatus};
use crate::sys::clock;
use crate::wire::name::RequestId;

/// How long the answer waits for the job's end. A job that takes longer is still being ended.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time between two looks, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// The request: the job's id.
#[derive(Debug)]
pub struct Cancel(RequestId);

impl OfPeer for Cancel {
    const VERB: Verb = Verb::Cancel;
}

/// Reads a request.
///
/// # Errors
/// The answer to what is none.
pub fn ask(path: &str) -> Result<Cancel, Instead> {
    let id = RequestId::parse(path.strip_prefix(CANCEL).unwrap_or_default());
    id.map(Cancel).map_err(|_| answer::error(StatusCode::NOT_FOUND, "not found").into())
}

/// Cancels the caller's job of this id and answers with its record, without output: 200 when it has ended, 202 while it
/// is still ending.
pub async fn cancel(agent: &Arc<Agent>, passed: Passed<Cancel>, words: Words) -> Answer {
    let (Asked { peer, snapshot, ask: Cancel(id) }, ()) = passed.into_parts();
    let store = jobs::store(agent, &snapshot);
    let (key, (mut record, _)) = match result::find(agent, &store, &peer, id, ["cancel-miss", "cancel-deny"]).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let mut heard = true;
    if record.status == JobStatus::Running {
        let wanted = key.clone();
        let asked = jobs::work(&store, move |jobs| jobs.cancel(&wanted)).await;
        heard = match asked {
            Ok(heard) => heard,
            Err(error) => return jobs::unreadable(agent, &key, peer.trace(), &error),
        };
    }
    let (deadline, mut pause) = (Instant::now() + PATIENCE, PAUSES.0);
    while record.status == JobStatus::Running && Instant::now() < deadline {
        let wanted = key.clone();
        record = match jobs::work(&store, move |jobs| jobs.look(&wanted, clock::now())).await {
            Ok(Some(record)) => record,
            Ok(None) => break,
            Err(error) => return jobs::unreadable(agent, &key, peer.trace(), &error),
        };
        if !heard {
            break;
        }
        if record.status == JobStatus::Running {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
    let event = Event::new(Level::Info, "cancel").field("DISPATCHER", peer.id()).field("PEER", peer.address());
    let event = event.maybe("TRACE", peer.trace());
    agent.log().emit(event.field("REQID", &key.id).field("STATUS", record.status.as_str()));
    told(words.tell(record), heard, words)
}

fn told(record: JobRecord, heard: bool, words: Words) -> Answer {
    match (record.status, heard) {
        (JobStatus::Running, false) => {
            let text = "this job was not started by this version of the agent, and cannot be cancelled";
            let body = json!({ "status": "running", "reqid": record.reqid, "error": text });
            answer::json(StatusCode::CONFLICT, &body)
        }
        (JobStatus::Running, true) => words.answer(StatusCode::ACCEPTED, &record.without_output()),
        _ => words.answer(StatusCode::OK, &record.without_output()),
    }
}
