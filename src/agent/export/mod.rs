//! `GET /metrics`, to processes of this host.
//!
//! Whoever asks is not known, so nobody may cost much: one request a connection, few connections, each with an end, and
//! where all places are taken the oldest gives way. None of that is shared with dispatchers: their requests take no place
//! from a scrape, nor a scrape from them.

mod exposition;
mod facts;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::exposition::MEDIA_TYPE;
use self::facts::Last;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::conf::Endpoint;
use crate::conf::agent::Settings;
use crate::net::body;
use crate::net::handshakes::{Handshakes, Place};
use crate::net::local::{Local, LocalError, LocalListener};

/// Connections at once.
const CONNECTIONS: usize = 16;
/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(5);
/// Bytes of a request's head.
const HEAD_SIZE: usize = 16 * 1024;
/// How long a connection may last.
const WHOLE: Duration = Duration::from_secs(15);
/// Bytes of a body that are read away; nothing here has one.
const BODY: usize = 16 * 1024;

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

async fn connection(agent: Arc<Agent>, last: Arc<Last>, stream: Box<dyn Local>, mut place: Place) {
    let service = service_fn(|request| {
        let (agent, last) = (Arc::clone(&agent), Arc::clone(&last));
        async move { Ok::<_, Infallible>(answer(&agent, &last, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_SIZE).keep_alive(false);
    tokio::select! {
        // What breaks a connection is nobody's error here: who waits for an answer hears of it.
        _ = timeout(WHOLE, http.serve_connection(TokioIo::new(stream), service)) => {}
        () = place.lost() => {}
    }
}

async fn answer(agent: &Arc<Agent>, last: &Last, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, incoming) = request.into_parts();
    body::discard(incoming, BODY).await;
    if head.uri.path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "not found: ask for /metrics\n");
    }
    if head.method != Method::GET {
        let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    let facts = last.facts(agent).await;
    match exposition::text(&agent.metrics, &facts, agent.started_at()) {
        Ok(text) => typed(StatusCode::OK, MEDIA_TYPE, text),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.to_owned())
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
