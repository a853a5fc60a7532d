//! A job's output as it is printed: its files are read on until the job has ended.
//!
//! The follower is nobody to the job. One that reads slowly or not at all, or goes away, changes nothing for it.

use std::sync::Arc;
use std::time::Duration;

use super::answer::{self, Answer};
use super::excerpt::{Source, read};
use super::jobs::{self, Part};
use super::state::Agent;
use super::stream::{self, Outlet, OutputBody, Stalled};
use super::under_way::Place;
use crate::store::StoreError;
use crate::store::jobs::{JobRecord, Jobs, Key};
use crate::sys::clock;
use crate::wire::stream::Channel;
use crate::wire::trace::TraceParent;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;
/// Time between two looks at a job that prints, and at one that is silent.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// A job to be followed.
pub(super) struct Followed {
    pub(super) agent: Arc<Agent>,
    pub(super) store: Jobs,
    pub(super) key: Key,
    /// What of its output, and from where on.
    pub(super) parts: Vec<Part>,
    /// The trace that the follower's request is part of.
    pub(super) trace: Option<TraceParent>,
    /// Held until the follower has enough, aside: the job is nobody's request any more.
    pub(super) place: Place,
}

/// The answer that follows a job. Its place is for the next request before the caller hears anything.
pub(super) fn answer(mut followed: Followed, reader: stream::Reader) -> Answer {
    followed.place.step_aside();
    answer::stream(OutputBody::start(reader, |outlet| follow(followed, outlet)))
}

/// Sends what a job prints, from the wanted places on; then its record, without the output that was sent before.
async fn follow(followed: Followed, outlet: Outlet) {
    let Followed { agent, store, key, parts, trace, mut place } = followed;
    outlet.is_to_be_read(&agent.readers, &key.owner, &mut place);
    let record = tokio::select! {
        record = to_the_end(&store, &key, parts, &outlet) => record,
        Stalled = outlet.keep_alive() => return outlet.give_up(),
    };
    match record {
        Ok(Some(record)) => {
            let json = serde_json::to_vec(&record.without_output());
            outlet.end(json.unwrap_or_else(|_| b"{}".to_vec())).await;
        }
        // Forgotten meanwhile. The stream ends without its end: what was sent may not be everything.
        Ok(None) => {}
        Err(error) => jobs::store_failed(&agent, &key, trace.as_ref(), &error),
    }
    drop(place);
}

async fn to_the_end(
    store: &Jobs,
    key: &Key,
    parts: Vec<Part>,
    outlet: &Outlet,
) -> Result<Option<JobRecord>, StoreError> {
    if look(store, key).await?.is_none() {
        return Ok(None);
    }
    let mut readers = Vec::with_capacity(parts.len());
    for Part { channel, from } in parts {
        let key = key.clone();
        let source = jobs::work(store, move |jobs| Source::open(jobs, &key, channel)).await?;
        readers.push(Reader { source: Arc::new(source), channel, at: from });
    }
    let mut pause = PAUSES.0;
    loop {
        // Asked before the files are read: what is printed before the end is in them then.
        let wanted = key.clone();
        let alive = jobs::work(store, move |jobs| jobs.is_alive(&wanted)).await?;
        if drain(store, &mut readers, outlet).await? {
            pause = PAUSES.0;
        }
        if !alive {
            return look(store, key).await;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

async fn look(store: &Jobs, key: &Key) -> Result<Option<JobRecord>, StoreError> {
    let wanted = key.clone();
    jobs::work(store, move |jobs| jobs.look(&wanted, clock::now())).await
}

/// One output and how far it was sent.
struct Reader {
    source: Arc<Source>,
    channel: Channel,
    at: u64,
}

/// Sends what there is, in turns; whether there was anything.
async fn drain(store: &Jobs, readers: &mut [Reader], outlet: &Outlet) -> Result<bool, StoreError> {
    let mut any = false;
    loop {
        let mut progress = false;
        for reader in &mut *readers {
            let (source, at) = (Arc::clone(&reader.source), reader.at);
            let bytes = jobs::work(store, move |_| read(&source, at, CHUNK)).await?;
            if !bytes.is_empty() {
                reader.at += u64::try_from(bytes.len()).unwrap_or(0);
                outlet.tell(reader.channel, &bytes).await;
                progress = true;
            }
        }
        any |= progress;
        if !progress {
            return Ok(any);
        }
    }
}
