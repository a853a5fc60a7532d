//! `GET /metrics`, to processes of this host.
//!
//! Whoever asks is not known, so nobody may cost much: one request a connection, few connections, each with an end, and
//! where all places are taken the oldest gives way. None of that is shared with dispatchers: their requests take no place
//! from a scrape, nor a scrape from them.

mod exposition;
mod facts;
mod http;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::exposition::MEDIA_TYPE;
use self::facts::Last;
use self::http::{Answer, Asked};
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::conf::Endpoint;
use crate::conf::agent::Settings;
use crate::net::handshakes::{Handshakes, Place};
use crate::net::local::{Local, LocalError, LocalListener};

/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may last.
const WHOLE: Duration = Duration::from_secs(15);
/// Where the agent says what it counts.
#[derive(Debug, Default)]
pub struct Exporter(Mutex<Option<Open>>);

#[derive(Debug)]
struct Open {
    /// As the configuration says it, where port 0 is any.
    wanted: Endpoint,
    task: AbortHandle,
}

impl Open {
    /// Whether it is this one; a socket whose name is gone is none.
    fn serves(&self, wanted: &Endpoint) -> bool {
        let there = |path: &Path| path.symlink_metadata().is_ok();
        self.wanted == *wanted && if let Endpoint::Unix(path) = wanted { there(path) } else { true }
    }
}

/// What a configuration changes about it; nothing is closed yet.
#[derive(Debug)]
#[must_use]
pub enum Change {
    /// Nothing.
    Stay,
    /// It closes.
    Close,
    /// It moves there.
    Move(Endpoint, LocalListener),
}

impl Exporter {
    /// Serves where the agent's configuration wants it.
    ///
    /// # Errors
    /// It cannot listen there.
    pub fn open(&self, agent: &Arc<Agent>) -> Result<(), LocalError> {
        let change = self.prepare(&agent.snapshot().settings)?;
        self.change(agent, change);
        Ok(())
    }

    /// Opens what these settings want, where that is not open already.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn prepare(&self, settings: &Settings) -> Result<Change, LocalError> {
        let wanted = settings.metrics.as_deref();
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match wanted {
            None => Ok(Change::Close),
            Some(wanted) if open.as_ref().is_some_and(|open| open.serves(wanted)) => Ok(Change::Stay),
            Some(wanted) => Ok(Change::Move(wanted.clone(), LocalListener::open(wanted)?)),
        }
    }

    /// Serves there, and then no more where it was.
    pub fn change(&self, agent: &Arc<Agent>, change: Change) {
        let fresh = match change {
            Change::Stay => return,
            Change::Close => None,
            Change::Move(wanted, listener) => {
                let event = Event::new(Level::Info, "metrics-listen");
                agent.log().emit(event.field("ADDRESS", listener.endpoint()));
                let task = tokio::spawn(accept(Arc::clone(agent), listener)).abort_handle();
                Some(Open { wanted, task })
            }
        };
        let before = std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), fresh);
        if let Some(before) = before {
            before.task.abort();
        }
    }
}

async fn accept(agent: Arc<Agent>, listener: LocalListener) {
    let (places, last) = (Handshakes::new(CONNECTIONS, CONNECTIONS), Arc::new(Last::default()));
    loop {
        let trouble = |error: &std::io::Error| {
            agent.log().emit(Event::new(Level::Error, "accept-error").field("REASON", error));
        };
        let stream = listener.accept(trouble).await;
        // All of them are this host's.
        let place = places.enter(IpAddr::V4(Ipv4Addr::LOCALHOST), true);
        tokio::spawn(connection(Arc::clone(&agent), Arc::clone(&last), stream, place));
    }
}

async fn connection(agent: Arc<Agent>, last: Arc<Last>, mut stream: Box<dyn Local>, place: Place) {
    let talk = async {
        // Who has gone, or says nothing, gets no answer.
        let Some(asked) = timeout(HEAD, http::head(&mut stream)).await.ok().flatten() else { return };
        let answer = answer(&agent, &last, &asked).await;
        http::tell(&mut stream, &answer, asked.is_head()).await;
    };
    tokio::select! {
        _ = timeout(WHOLE, talk) => {}
        () = place.lost() => {}
    }
}

async fn answer(agent: &Arc<Agent>, last: &Last, asked: &Asked) -> Answer {
    let (method, path) = match asked {
        Asked::Request { method, path } => (method.as_str(), path.as_str()),
        Asked::Malformed => return Answer::plain("400 Bad Request", "this is no request\n"),
        Asked::TooLarge => return Answer::plain("431 Request Header Fields Too Large", "request head too large\n"),
    };
    if path.split('?').next() != Some("/metrics") {
        return Answer::plain("404 Not Found", "not found: ask for /metrics\n");
    }
    if method != "GET" {
        return Answer { allow: Some("GET"), ..Answer::plain("405 Method Not Allowed", "use GET\n") };
    }
    let facts = last.facts(agent).await;
    match exposition::text(&agent.metrics, &facts, agent.started_at()) {
        Ok(text) => Answer { status: "200 OK", kind: MEDIA_TYPE, allow: None, text },
        Err(_) => Answer::plain("500 Internal Server Error", "the metrics cannot be written\n"),
    }
}
