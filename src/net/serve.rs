//! Requests of one connection, in the protocol that its handshake agreed on: HTTP/1.0 and 1.1 for the original and for
//! anything by hand, HTTP/2 between our own ends.
//!
//! A connection lives as long as its peer uses it. HTTP/1 bounds the wait for the next head; HTTP/2 has no such wait,
//! since its frames interleave, so there the time without a request under way is bounded, and a peer that is gone
//! without a word is found by pings (RFC 9113 6.7).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::tls::peer;
use crate::wire::limits;

/// What one connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// HTTP/1: how long a request head may take, the idle time before it included.
    pub head: Duration,
    /// HTTP/2: how long a connection without a request under way stays open.
    pub idle: Duration,
    /// HTTP/2: requests under way at once.
    pub streams: u32,
}

/// HTTP/2: bytes of a request body in flight, for one request and for the whole connection.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// HTTP/2: bytes of an answer that may wait for the connection, for one request.
const UNSENT: usize = 64 * 1024;
/// HTTP/2: a peer is asked for a sign of life after so much silence, and given so much time for it.
const SIGN_OF_LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// HTTP/2: how long a peer may take to part, once told to.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection to its end. What breaks a connection is nobody's error here: who waits for an answer hears of it.
pub async fn serve<A, F, B>(stream: TlsStream<TcpStream>, bounds: Bounds, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if peer::is_http_2(stream.get_ref().1) {
        serve_2(stream, bounds, answer).await;
    } else {
        let service = service_fn(|request| {
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(limits::REQUEST_HEAD);
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }
}

async fn serve_2<A, F, B>(stream: TlsStream<TcpStream>, bounds: Bounds, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let watched = under_way.subscribe();
    let service = service_fn(move |request| {
        let (counted, answer) = (Counted::new(&under_way), answer(request));
        async move { Ok::<_, Infallible>(answer.await.map(|body| Held { body, _counted: counted })) }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(u32::try_from(limits::REQUEST_HEAD).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(UNSENT)
        .keep_alive_interval(SIGN_OF_LIFE.0)
        .keep_alive_timeout(SIGN_OF_LIFE.1);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = &mut connection => return,
        () = idle(watched, bounds.idle) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A request that came at the same moment is still answered.
    let _ = timeout(FAREWELL, connection).await;
}

/// Returns when nothing was under way for `limit`, or when nothing ever will be.
async fn idle(mut counter: watch::Receiver<usize>, limit: Duration) {
    loop {
        let busy = *counter.borrow_and_update() > 0;
        let changed = counter.changed();
        let goes_on =
            if busy { changed.await.is_ok() } else { timeout(limit, changed).await.is_ok_and(|change| change.is_ok()) };
        if !goes_on {
            return;
        }
    }
}

/// One request under way, from its head to the last byte of its answer.
#[derive(Debug)]
struct Counted(Arc<watch::Sender<usize>>);

impl Counted {
    fn new(counter: &Arc<watch::Sender<usize>>) -> Self {
        counter.send_modify(|count| *count += 1);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// An answer's body that says when it has been sent or given up.
struct Held<B> {
    body: B,
    _counted: Counted,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
