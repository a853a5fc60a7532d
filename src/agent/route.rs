//! From a request to the verb that answers it. Trust is judged here, before anything of the request is used.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::ACCEPT;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use rustls::pki_types::UnixTime;

use super::answer::{self, Answer};
use super::gate::{self, Peer, TrustedPeer};
use super::metrics::{Counted, Verb};
use super::state::Agent;
use super::stream::Reader;
use super::under_way::Place;
use super::{cancel, capabilities, ping, renew, result, rotate, run};
use crate::audit::{Event, Level};
use crate::net::body::{self, Arriving, BodyError};
use crate::net::serve::{Cut, Parting};
use crate::wire::limits;
use crate::wire::stream::MEDIA_TYPE;
use crate::wire::trace::TraceParent;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// Answers one request, and counts it. `judged` hears whether the peer is trusted.
pub async fn answer(agent: Arc<Agent>, peer: Peer, request: Request<Incoming>, judged: impl FnOnce(bool)) -> Answer {
    let counted = Counted::new(Arc::clone(&agent.metrics), Verb::of(request.method(), path(request.uri())));
    let answer = judged_and_answered(agent, peer, request, judged).await;
    counted.answered(answer::verdict(&answer));
    answer
}

async fn judged_and_answered(
    agent: Arc<Agent>,
    peer: Peer,
    request: Request<Incoming>,
    judged: impl FnOnce(bool),
) -> Answer {
    let snapshot = agent.snapshot();
    let trusted = gate::judge(&peer, &snapshot, UnixTime::now());
    drop(snapshot);
    judged(trusted.is_ok());
    let trusted = match trusted {
        Ok(trusted) => trusted.traced(trace(request.headers())),
        Err(distrust) => {
            let mut answer = distrust.answer(&peer, request.uri().path(), agent.log());
            // Its next attempt is a new connection, with all that is judged before one.
            answer.extensions_mut().insert(Parting);
            return refused(request, answer).await;
        }
    };
    if let Some(text) = oversized_head(&request) {
        let answer = answer::error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text);
        return refused(request, answer).await;
    }
    let (head, incoming) = request.into_parts();
    let body = match arrived(&agent, &trusted, incoming).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    match agent.begin(head.extensions.get()) {
        Ok(place) => routed(&agent, &trusted, head, &body, place).await,
        Err(live) => crowded(&agent, &trusted, live),
    }
}

/// All of a request's body. Who keeps this end waiting for it has a place among the others of his kind, of which the
/// oldest gives way.
async fn arrived(agent: &Agent, peer: &TrustedPeer, incoming: Incoming) -> Result<Bytes, Answer> {
    let mut arriving = Arriving::new(incoming, limits::REQUEST_BODY);
    if let Some(body) = arriving.at_once().await {
        return body.map_err(refused_body);
    }
    let place = agent.bodies.enter(peer.id().clone(), false);
    let body = tokio::select! {
        biased;
        body = arriving.within(BODY, |bytes| place.weigh(bytes)) => Some(body),
        () = place.lost() => None,
    };
    drop(place);
    if let Some(body) = body {
        return body.map_err(refused_body);
    }
    let answer = crowded(agent, peer, agent.bodies.held());
    arriving.discard().await;
    Err(answer)
}

/// The answer to one for whom there is no room beside so many others.
fn crowded(agent: &Agent, peer: &TrustedPeer, live: usize) -> Answer {
    let event = Event::new(Level::Warning, "overload").field("LIVE", live);
    agent.log().emit(event.field("PEER", peer.address()));
    let body = serde_json::json!({ "error": "too many requests at once", "reason": "overload" });
    answer::json(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// An answer that does not depend on the body. The body is read away all the same: a connection that is closed on bytes
/// that nobody has read is reset, and its client never sees the answer.
async fn refused(request: Request<Incoming>, answer: Answer) -> Answer {
    body::discard(request.into_body(), limits::REQUEST_BODY).await;
    answer
}

async fn routed(agent: &Arc<Agent>, peer: &TrustedPeer, head: Parts, body: &[u8], place: Place) -> Answer {
    let path = path(&head.uri);
    let reader = wants_stream(&head.headers).then(|| Reader {
        cut: head.extensions.get::<Cut>().cloned().unwrap_or_default(),
        patience: agent.snapshot().settings.stall_timeout,
    });
    match Verb::of(&head.method, path) {
        Verb::Run => run::run(agent, peer, body, reader, place).await,
        Verb::Ping => ping::ping(agent, peer, body),
        Verb::Capabilities => capabilities::capabilities(agent, peer).await,
        Verb::Result => result::result(agent, peer, path, reader, place).await,
        Verb::Cancel => cancel::cancel(agent, peer, path).await,
        Verb::Renew => renew::renew(agent, peer, body).await,
        Verb::RenewComplete => renew::complete(agent, peer, body).await,
        Verb::RotateSerial => rotate::rotate(agent, peer, body).await,
        Verb::Unknown => answer::error(StatusCode::NOT_FOUND, "not found"),
    }
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// Whether the caller can read a streamed answer. The original cannot, and does not say so.
fn wants_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = values.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// The caller's `traceparent`. Several, or one of another form, are none (Trace Context 3.2.2).
fn trace(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TraceParent::HEADER).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => TraceParent::parse(only.to_str().ok()?).ok(),
        _ => None,
    }
}

fn oversized_head(request: &Request<Incoming>) -> Option<&'static str> {
    if request.headers().len() > limits::REQUEST_HEADERS {
        return Some("too many headers");
    }
    (head_size(request) > limits::REQUEST_HEAD).then_some("request head too large")
}

/// hyper ends what is far beyond the limit, but takes a head that happens to arrive in one piece.
fn head_size(request: &Request<Incoming>) -> usize {
    let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    request.headers().iter().fold(line, |size, (name, value)| size + name.as_str().len() + value.len() + 4)
}

fn refused_body(error: BodyError) -> Answer {
    let status = match error {
        BodyError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::TimedOut => StatusCode::REQUEST_TIMEOUT,
        BodyError::Broken => StatusCode::BAD_REQUEST,
    };
    answer::error(status, &error.to_string())
}
