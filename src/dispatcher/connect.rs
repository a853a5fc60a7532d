//! One request to one agent: connect, pin, ask, read the answer. Every wait and every size is bounded.
//!
//! Between our own ends a connection is kept and shared (`pool`); an agent of the original is dialled for each request.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::dial::{Driver, Line, Single};
use super::failure::{self, CallError};
use super::pin;
use super::pool::{Dialled, Pool, Sending, Shown, Way};
use super::resolve::Target;
use crate::store::registry::Registry;
use crate::tls::resume::Caller;
use crate::wire::causes;
use crate::wire::stream::{Channel, Decoder, Frame, MEDIA_TYPE};

/// How many times the patience a whole answer may take behind its head.
const PIECES: u32 = 10;

/// What every call shares. Its copies share their connections.
#[derive(Clone)]
pub struct Dialer {
    caller: Caller,
    registry: Registry,
    pool: Pool,
    patience: Duration,
    most: usize,
}

/// What to ask.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: &'a str,
    /// What answers can be read (RFC 9110 12.5.1).
    pub accept: &'a str,
    /// The body, JSON or empty.
    pub body: Bytes,
}

/// What keeps the connection of an answer open while the answer is read.
enum Lifeline {
    Kept { _sender: SendRequest<Sending> },
    Single { _driver: Driver },
}

/// An agent's answer: 2xx, whole.
#[derive(Debug)]
pub struct Reply {
    /// 200, 202 or what the agent chose.
    pub status: StatusCode,
    /// At most the dialer's limit.
    pub body: Bytes,
}

impl Dialer {
    /// A dialer that waits at most `patience` for each step and reads answers of at most `most` bytes.
    #[must_use]
    pub fn new(caller: Caller, registry: Registry, patience: Duration, most: usize) -> Self {
        Self { caller, registry, pool: Pool::default(), patience, most }
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// Anything but a complete answer of status 2xx.
    pub async fn call(&self, target: &Target, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, CallError> {
        self.ask(target, Ask { method, path, accept: "application/json", body: body.into() }).await
    }

    /// As [`Dialer::call`], where other answers than JSON of no special kind can be read.
    ///
    /// # Errors
    /// As [`Dialer::call`].
    pub async fn ask(&self, target: &Target, ask: Ask<'_>) -> Result<Reply, CallError> {
        let (response, _connection) = self.open(target, ask).await?;
        // Each piece may take its time, but not every piece of an answer that comes in drops.
        let whole = timeout(self.patience.saturating_mul(PIECES), self.read(target, response)).await;
        whole.map_err(|_| self.out_of_patience())?
    }

    /// Sends one request whose answer may be a stream, and reads its frames as they come; `each` sees them in order.
    /// An agent that does not stream answers as to [`Dialer::call`].
    ///
    /// # Errors
    /// As [`Dialer::call`]; and a stream that breaks after the script started.
    pub async fn stream<F, Fut>(&self, target: &Target, ask: Ask<'_>, mut each: F) -> Result<Reply, CallError>
    where
        F: FnMut(Channel, Bytes) -> Fut + Send,
        Fut: Future<Output = ()> + Send,
    {
        let (response, _connection) = self.open(target, ask).await?;
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if kind != Some(MEDIA_TYPE) || !status.is_success() {
            return self.read(target, response).await;
        }
        let (mut incoming, mut decoder) = (response.into_body(), Decoder::default());
        let torn = |detail: String| CallError::Torn { host: target.address().to_owned(), detail };
        loop {
            let piece = timeout(self.patience, incoming.frame()).await;
            let piece = piece.map_err(|_| torn(format!("nothing was heard for {}s", self.patience.as_secs())))?;
            let piece = piece.ok_or_else(|| torn("the agent closed it".to_owned()))?;
            let Ok(data) = piece.map_err(|error| torn(causes::on_one_line(&error)))?.into_data() else { continue };
            let mut rest = &data[..];
            while let Some(frame) = decoder.next_frame(&mut rest).map_err(|error| torn(error.to_string()))? {
                match frame {
                    Frame::Output(channel, bytes) => each(channel, data.slice_ref(bytes)).await,
                    Frame::Idle => {}
                    Frame::End(json) => return Ok(Reply { status, body: json.into() }),
                }
            }
        }
    }

    /// Sends a request and waits for the head of the answer. The connection lives as long as what is returned beside it.
    ///
    /// A kept connection may have ended unseen, an agent's restart is enough. Where it is certain that the agent has not
    /// begun to serve the request, it is sent once more, on a connection that is made for it; a request that may have
    /// been served is never repeated.
    async fn open(&self, target: &Target, ask: Ask<'_>) -> Result<(Response<Incoming>, Lifeline), CallError> {
        loop {
            // On the heap, and gone as soon as the connection is there: a handshake is most of what a call has to hold.
            let way = Box::pin(self.pool.way(target, async || self.connect(target).await)).await?;
            let (kept, fresh) = match way {
                Way::One(single) => return self.ask_once(target, &ask, single).await,
                Way::Kept(kept) => (kept, false),
                Way::Fresh(kept) => (kept, true),
            };
            self.judge(target, &kept.shown)?;
            let mut sender = kept.sender;
            let waiting = timeout(self.patience, sender.try_send_request(request_2(&ask)?));
            match waiting.await.map_err(|_| self.out_of_patience())? {
                Ok(response) => return Ok((response, Lifeline::Kept { _sender: sender })),
                Err(mut error) => {
                    let unserved = error.take_message().is_some() || failure::is_unserved(error.error());
                    if fresh || !unserved {
                        return Err(failure::of_exchange(target.address(), error.error()));
                    }
                }
            }
        }
    }

    async fn ask_once(
        &self,
        target: &Target,
        ask: &Ask<'_>,
        single: Single,
    ) -> Result<(Response<Incoming>, Lifeline), CallError> {
        let Single { mut sender, driver } = single;
        let wait = timeout(self.patience, sender.send_request(request_1(target, ask)?));
        let response = wait.await.map_err(|_| self.out_of_patience())?;
        let response = response.map_err(|error| failure::of_exchange(target.address(), &error))?;
        Ok((response, Lifeline::Single { _driver: driver }))
    }

    /// Dials, completes the handshake, and judges the pin. Not a byte of a request is sent before that.
    async fn connect(&self, target: &Target) -> Result<Dialled<Single>, CallError> {
        let line = Line::open(&self.caller, target, self.patience).await?;
        self.judge(target, &line.shown)?;
        line.speak(target).await
    }

    fn judge(&self, target: &Target, shown: &Shown) -> Result<(), CallError> {
        Ok(pin::judge(&target.record, shown.presented(), |cn| self.claimed_by_another(target, cn))?)
    }

    /// A registry that cannot be read, or a record in it, claims everything: the safe answer.
    fn claimed_by_another(&self, target: &Target, cn: &str) -> bool {
        self.registry.list().map_or(true, |listing| {
            if !listing.broken.is_empty() {
                return true;
            }
            let mut others = listing.records.iter().filter(|record| record.hostname != *target.name());
            others.any(|record| pin::claims(record, cn))
        })
    }

    async fn read(&self, target: &Target, response: Response<Incoming>) -> Result<Reply, CallError> {
        let (head, mut stream) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = timeout(self.patience, stream.frame()).await.map_err(|_| self.out_of_patience())? {
            let Ok(data) = frame.map_err(|error| failure::of_exchange(target.address(), &error))?.into_data() else {
                continue;
            };
            if body.len() + data.len() > self.most {
                return Err(CallError::AnswerTooLarge(self.most));
            }
            body.extend_from_slice(&data);
        }
        judge_status(head.status, &body)?;
        Ok(Reply { status: head.status, body: body.into() })
    }

    fn out_of_patience(&self) -> CallError {
        CallError::ReadTimeout(self.patience.as_secs())
    }
}

/// `Connection: close` and `Content-Length` are what the original's server understands.
fn request_1(target: &Target, ask: &Ask<'_>) -> Result<Request<Sending>, CallError> {
    request(ask, ask.path, |request| request.header("host", target.label()).header("connection", "close"))
}

/// The authority is the same for every agent: nothing is decided by it.
fn request_2(ask: &Ask<'_>) -> Result<Request<Sending>, CallError> {
    request(ask, &format!("https://agent{}", ask.path), |request| request)
}

fn request(ask: &Ask<'_>, uri: &str, more: impl FnOnce(Builder) -> Builder) -> Result<Request<Sending>, CallError> {
    let request = Request::builder()
        .method(&ask.method)
        .uri(uri)
        .header("accept", ask.accept)
        .header("content-type", "application/json")
        .header("user-agent", concat!("ctrl-exec/", env!("CARGO_PKG_VERSION")));
    let request = more(request).body(Full::new(ask.body.clone()));
    request.map_err(|error| CallError::Status(error.to_string()))
}

fn judge_status(status: StatusCode, body: &[u8]) -> Result<(), CallError> {
    let word = |key: &str| Some(super::answer::object(body, "").ok()?.get(key)?.as_str()?.to_owned());
    let text = || word("error").unwrap_or_else(|| status.to_string());
    match status {
        StatusCode::FORBIDDEN => Err(CallError::Forbidden(text())),
        StatusCode::PAYLOAD_TOO_LARGE => Err(CallError::RequestTooLarge),
        StatusCode::CONFLICT => Err(CallError::Conflict { text: text(), reason: word("reason") }),
        StatusCode::NOT_FOUND => Err(CallError::NotFound(text())),
        status if status.is_success() => Ok(()),
        status => Err(CallError::Turned { status: status.to_string(), reason: word("reason") }),
    }
}
