//! One request to one agent: dial, handshake, pin, ask, read the answer. Every wait and every size is bounded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::CallError;
use super::pin::{self, Presented};
use super::resolve::Target;
use crate::store::registry::Registry;
use crate::tls::{self, peer};
use crate::wire::causes;
use crate::wire::hex;
use crate::wire::stream::{Channel, Decoder, Frame, MEDIA_TYPE};

/// How many times the patience a whole answer may take behind its head.
const PIECES: u32 = 10;

/// What every call shares.
#[derive(Clone)]
pub struct Dialer {
    tls: TlsConnector,
    registry: Registry,
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
    pub body: Vec<u8>,
}

/// Drives a connection until it is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
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
    pub fn new(tls: Arc<rustls::ClientConfig>, registry: Registry, patience: Duration, most: usize) -> Self {
        Self { tls: TlsConnector::from(tls), registry, patience, most }
    }

    /// Sends one request and reads the answer.
    ///
    /// # Errors
    /// Anything but a complete answer of status 2xx.
    pub async fn call(&self, target: &Target, method: Method, path: &str, body: Vec<u8>) -> Result<Reply, CallError> {
        let ask = Ask { method, path, accept: "application/json", body };
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
        F: FnMut(Channel, Vec<u8>) -> Fut + Send,
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
            while let Some(frame) = decoder.next_frame().map_err(|error| torn(error.to_string()))? {
                match frame {
                    Frame::Output(channel, bytes) => each(channel, bytes).await,
                    Frame::Idle => {}
                    Frame::End(json) => return Ok(Reply { status, body: json.into() }),
                }
            }
            let piece = timeout(self.patience, incoming.frame()).await;
            let piece = piece.map_err(|_| torn(format!("nothing was heard for {}s", self.patience.as_secs())))?;
            let piece = piece.ok_or_else(|| torn("the agent closed it".to_owned()))?;
            if let Ok(data) = piece.map_err(|error| torn(causes::on_one_line(&error)))?.into_data() {
                decoder.push(&data);
            }
        }
    }

    /// Connects, sends a request, and waits for the head of the answer. The connection lives as long as what is
    /// returned beside it.
    async fn open(&self, target: &Target, ask: Ask<'_>) -> Result<(Response<Incoming>, Driver), CallError> {
        let stream = self.connect(target).await?;
        let lost = |error: hyper::Error| broken(target, &error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let driver = Driver(tokio::spawn(async move {
            // What breaks the connection is heard by whoever waits for the answer.
            let _ = connection.await;
        }));
        let request = request(target, ask)?;
        let wait = timeout(self.patience, sender.send_request(request));
        let response = wait.await.map_err(|_| self.out_of_patience())?.map_err(lost)?;
        Ok((response, driver))
    }

    /// Dials, completes the handshake, and judges the pin. Not a byte of a request is sent before that.
    async fn connect(&self, target: &Target) -> Result<TlsStream<TcpStream>, CallError> {
        let host = target.address();
        let late = || CallError::TimedOut { host: host.to_owned() };
        let stream = timeout(self.patience, dial(host, target.port, self.patience)).await.map_err(|_| late())??;
        // Names are not matched: the pin is.
        let stream = timeout(self.patience, self.tls.connect(tls::any_name(), stream)).await.map_err(|_| late())?;
        let stream = stream.map_err(|error| CallError::of_handshake(host, &error))?;
        self.judge(target, &stream)?;
        Ok(stream)
    }

    fn judge(&self, target: &Target, stream: &TlsStream<TcpStream>) -> Result<(), CallError> {
        let unusable = |detail: String| CallError::Tls { host: target.address().to_owned(), detail };
        let shown = peer::certificate(stream.get_ref().1).map_err(|error| unusable(error.to_string()))?;
        let key = hex::encode(&shown.public_key().sha256());
        let presented = Presented { cn: shown.common_name().unwrap_or_default(), key_sha256: &key };
        pin::judge(&target.record, presented, |cn| self.claimed_by_another(target, cn))?;
        Ok(())
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
            let Ok(data) = frame.map_err(|error| broken(target, &error))?.into_data() else { continue };
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

/// Tries every address of the name in turn. Each has its share of the time, so that one that swallows packets does not
/// keep the next from being tried.
async fn dial(host: &str, port: u16, patience: Duration) -> Result<TcpStream, CallError> {
    let unresolved = || CallError::Unresolved { host: host.to_owned() };
    let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(|_| unresolved())?.collect();
    let share = patience / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = unresolved();
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A socket that refuses TCP_NODELAY is already closed; the handshake says so.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = CallError::of_connect(host, port, &error),
            Err(_) => last = CallError::TimedOut { host: host.to_owned() },
        }
    }
    Err(last)
}

/// `Connection: close` and `Content-Length` are what the original's server understands.
fn request(target: &Target, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, CallError> {
    Request::builder()
        .method(ask.method)
        .uri(ask.path)
        .header("host", target.label())
        .header("accept", ask.accept)
        .header("connection", "close")
        .header("content-type", "application/json")
        .header("user-agent", concat!("ctrl-exec/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(Bytes::from(ask.body)))
        .map_err(|error| CallError::Status(error.to_string()))
}

fn judge_status(status: StatusCode, body: &[u8]) -> Result<(), CallError> {
    let text = || {
        let error =
            super::answer::object(body, "").ok().and_then(|fields| Some(fields.get("error")?.as_str()?.to_owned()));
        error.unwrap_or_else(|| status.to_string())
    };
    match status {
        StatusCode::FORBIDDEN => Err(CallError::Forbidden(text())),
        StatusCode::PAYLOAD_TOO_LARGE => Err(CallError::RequestTooLarge),
        StatusCode::CONFLICT => Err(CallError::Conflict(text())),
        StatusCode::NOT_FOUND => Err(CallError::NotFound(text())),
        status if status.is_success() => Ok(()),
        status => Err(CallError::Status(status.to_string())),
    }
}

/// A connection that broke. In TLS 1.3 the client's handshake is over before the server has judged its certificate, so
/// a refusal arrives here, as an alert instead of the answer.
fn broken(target: &Target, error: &hyper::Error) -> CallError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
        {
            return CallError::of_handshake(target.address(), io);
        }
        cause = error.source();
    }
    CallError::Lost { host: target.address().to_owned(), detail: causes::on_one_line(error) }
}
