//! From a request to the verb that answers it, past the gates: whose it is before anything of it is used, and then what it
//! asks for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use rustls::pki_types::UnixTime;

use super::answer::{self, Answer, Instead};
use super::capabilities::Discovery;
use super::gate::{self, Ask, Passed, Peer, TrustedPeer};
use super::metrics::{Counted, Verb};
use super::result::Form;
use super::state::Agent;
use super::stream::Reader;
use super::under_way::Place;
use super::words::{self, Words};
use super::{cancel, capabilities, ping, renew, result, rotate, run, unread};
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
    let verb = Verb::of(request.method(), path(request.uri()));
    let counted = Counted::new(Arc::clone(&agent.metrics), verb);
    let answer = judged_and_answered(agent, peer, (verb, request), judged).await;
    counted.answered(answer::verdict(&answer));
    answer
}

async fn judged_and_answered(
    agent: Arc<Agent>,
    peer: Peer,
    (verb, request): (Verb, Request<Incoming>),
    judged: impl FnOnce(bool),
) -> Answer {
    let trusted = gate::asks(&agent, &peer, Some(verb), UnixTime::now()).await;
    judged(trusted.is_ok());
    let trusted = match trusted {
        Ok(trusted) => trusted.traced(trace(request.headers())),
        Err(word) => {
            let answer = parting(word.answer(&peer, request.uri().path(), agent.log()));
            return refused(request, answer).await;
        }
    };
    let cut = request.extensions().get::<Cut>().cloned().unwrap_or_default();
    let (dispatcher, address) = (trusted.id().clone(), trusted.address());
    let mut answer = match oversized_head(&request) {
        Some(text) => refused(request, answer::error(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text)).await,
        None => asked(&agent, trusted, (verb, request)).await,
    };
    if let Either::Left(whole) = answer.body_mut() {
        whole.counted(&agent.unread, unread::Reader { dispatcher, address, cut, log: agent.log().clone() });
    }
    answer
}

/// Answers a trusted dispatcher.
async fn asked(agent: &Arc<Agent>, peer: TrustedPeer, (verb, request): (Verb, Request<Incoming>)) -> Answer {
    let (head, incoming) = request.into_parts();
    let body = match arrived(agent, &peer, incoming).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    match agent.begin(head.extensions.get()) {
        Ok(place) => routed(agent, peer, (verb, head), &body, place).await.unwrap_or_else(|instead| *instead),
        Err(live) => crowded(agent, &peer, live),
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

/// The verb's answer, or that of the gate that keeps the request from it.
async fn routed(
    agent: &Arc<Agent>,
    peer: TrustedPeer,
    (verb, head): (Verb, Parts),
    body: &[u8],
    place: Place,
) -> Result<Answer, Instead> {
    let path = path(&head.uri);
    // The original cannot read a streamed answer, and does not say so.
    let reader = words::accepts(&head.headers, MEDIA_TYPE).then(|| Reader {
        cut: head.extensions.get::<Cut>().cloned().unwrap_or_default(),
        patience: agent.snapshot().settings.stall_timeout,
    });
    let door = Door { agent, peer, path };
    Ok(match verb {
        Verb::Run => run::run(agent, door.pass(run::ask(body)?).await?, reader, place).await,
        Verb::Ping => ping::ping(agent, &door.pass(ping::ask(body)).await?),
        Verb::Capabilities => capabilities::capabilities(agent, &door.pass(Discovery).await?).await,
        Verb::Result => {
            let form = reader.map_or_else(|| Form::Whole(Words::of(&head.headers)), Form::Followed);
            result::result(agent, door.pass(result::ask(path)?).await?, form, place).await
        }
        Verb::Cancel => {
            let words = Words::of(&head.headers);
            cancel::cancel(agent, door.pass(cancel::ask(path)?).await?, words).await
        }
        Verb::Renew => renew::renew(agent, door.pass(renew::ask(body)).await?).await,
        Verb::RenewComplete => renew::complete(agent, door.pass(renew::ask_complete(body)).await?).await,
        Verb::RotateSerial => {
            let ask = rotate::ask(agent, &door.peer, body)?;
            rotate::rotate(agent, door.pass(ask).await?).await
        }
        Verb::Unknown => answer::error(StatusCode::NOT_FOUND, "not found"),
    })
}

/// Where a request is asked whether it may pass.
struct Door<'a> {
    agent: &'a Arc<Agent>,
    peer: TrustedPeer,
    path: &'a str,
}

impl Door<'_> {
    async fn pass<A: Ask>(self, ask: A) -> Result<Passed<A>, Instead> {
        gate::calls(self.agent, self.peer, ask).await.map_err(|stopped| {
            let distrusted = stopped.distrusted(self.path, self.agent.log()).map(parting);
            distrusted.unwrap_or_else(|| A::stopped(self.agent, *stopped)).into()
        })
    }
}

/// The last answer of its connection: the peer's next attempt is a new one, with all that is judged before it.
fn parting(mut answer: Answer) -> Answer {
    answer.extensions_mut().insert(Parting);
    answer
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
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
