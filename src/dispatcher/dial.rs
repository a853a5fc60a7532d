//! Dialling one agent: TCP, TLS, and who it proved to be.

use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::{self, CallError};
use super::pool::{Dialled, Kept, Sending, Shown};
use super::resolve::Target;
use crate::sys::socket;
use crate::tls::resume::{Call, Caller};
use crate::tls::{self, peer};
use crate::wire::hex;

/// HTTP/2: bytes of one answer in flight, and of all answers on a connection. A caller that reads slowly stops its own
/// answer at the first and hardly ever the others at the second.
const WINDOWS: (u32, u32) = (512 * 1024, 64 * 1024 * 1024);
/// HTTP/2: bytes of a frame, so that a piece of output as the agent reads it is one.
const FRAME: u32 = 128 * 1024;
/// HTTP/2: an agent is asked for a sign of life after so much silence, and given so much time for it.
const SIGN_OF_LIFE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));

/// A connection for one request, which drives itself until it is dropped.
pub(super) struct Single {
    pub(super) sender: http1::SendRequest<Sending>,
    pub(super) driver: Driver,
}

/// Drives a connection until it is dropped.
pub(super) struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A finished handshake.
pub(super) struct Line {
    /// On the heap: hyper makes two tasks of a connection, each as large as whatever carries the bytes.
    stream: Box<TlsStream<TcpStream>>,
    call: Call,
    /// Who is at the other end.
    pub(super) shown: Shown,
}

impl Line {
    /// Dials and completes the handshake. Names are not matched: the pin is, by the caller, before anything is sent.
    pub(super) async fn open(caller: &Caller, target: &Target, patience: Duration) -> Result<Self, CallError> {
        let host = target.address();
        let late = || CallError::TimedOut { host: host.to_owned() };
        // A kept session is made ready while the other host answers.
        let (call, dialling) = (async { caller.call(&target.label()) }, dial(host, target.port, patience));
        let (stream, call) = tokio::join!(biased; timeout(patience, dialling), call);
        let (stream, connector) = (stream.map_err(|_| late())??, TlsConnector::from(Arc::clone(call.config())));
        let stream = timeout(patience, connector.connect(tls::any_name(), stream)).await.map_err(|_| late())?;
        let stream = Box::new(stream.map_err(|error| CallError::of_handshake(host, &error))?);
        let unusable = |detail: String| CallError::Tls { host: host.to_owned(), detail };
        let certificate = peer::certificate(stream.get_ref().1).map_err(|error| unusable(error.to_string()))?;
        let cn = certificate.common_name().unwrap_or_default().to_owned();
        let shown = Shown::new(cn, hex::encode(&certificate.public_key().sha256()));
        Ok(Self { stream, call, shown })
    }

    /// Begins to speak HTTP, in the version that the handshake agreed on. From now on the other end is who it should be, and
    /// its session may be kept.
    pub(super) async fn speak(self, target: &Target) -> Result<Dialled<Single>, CallError> {
        let broken = |error: hyper::Error| failure::of_exchange(target.address(), &error);
        self.call.keep(self.stream.get_ref().1);
        let shared = peer::is_http_2(self.stream.get_ref().1);
        let io = TokioIo::new(self.stream);
        // What breaks a connection is heard by whoever waits for an answer on it.
        if shared {
            let (sender, connection) = http2().handshake(io).await.map_err(broken)?;
            tokio::spawn(connection);
            return Ok(Dialled::Kept(Kept { sender, shown: self.shown }));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(broken)?;
        let driver = Driver(tokio::spawn(async move {
            let _ = connection.await;
        }));
        Ok(Dialled::One(Single { sender, driver }))
    }
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(FRAME)
        .keep_alive_interval(SIGN_OF_LIFE.0)
        .keep_alive_timeout(SIGN_OF_LIFE.1)
        .keep_alive_while_idle(true);
    http
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
                // Over HTTP/1 nothing else tells an agent that is gone without a word from one that is busy.
                let _ = socket::watch_for_loss(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => last = CallError::of_connect(host, port, &error),
            Err(_) => last = CallError::TimedOut { host: host.to_owned() },
        }
    }
    Err(last)
}
