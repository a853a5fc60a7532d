//! Requests of one connection, in the protocol that its handshake agreed on: HTTP/1.0 and 1.1 for the original and for
//! anything by hand, HTTP/2 between our own ends.
//!
//! A connection lives as long as its peer uses it. HTTP/1 bounds the wait for the next head; HTTP/2 has no such wait,
//! since its frames interleave, so there the time without a request under way is bounded, and a peer that is gone
//! without a word is found by pings (RFC 9113 6.7).

mod http_1;
mod http_2;
mod parting;
mod unasked;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::server::TlsStream;

pub use http_1::serve_1;
pub use http_2::serve_2;
pub use parting::part;

use crate::sys::socket;
use crate::tls::peer;

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

/// What came over a connection and is no request, in words for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(pub String);

/// How long a peer may take to part, once told to.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection to its end. What breaks a connection is nobody's error here: who waits for an answer hears of it.
/// HTTP/1: what came in place of a request was answered, and is returned.
///
/// When `leave` is done, the peer is told no more on this connection: requests under way are answered, and where there
/// are none, it ends.
pub async fn serve<A, F, B>(
    stream: TlsStream<TcpStream>,
    bounds: Bounds,
    leave: impl Future<Output = ()>,
    answer: A,
) -> Option<Unreadable>
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if peer::is_http_2(stream.get_ref().1) {
        serve_2(stream, bounds, leave, answer).await;
        None
    } else {
        let hung_up = |stream: &TlsStream<TcpStream>| socket::has_hung_up(stream.get_ref().0);
        http_1::serve(stream, hung_up, bounds, leave, answer).await
    }
}

/// In an answer's extensions: the peer is told no more on this connection.
#[derive(Clone, Copy, Debug)]
pub struct Parting;

/// In a request's extensions: a way for the one who answers to give up in the middle, when the peer takes no more of
/// the answer. HTTP/2 resets that one stream; HTTP/1, where the answer is the connection, closes it.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Notify>);

impl Cut {
    /// Gives up. What the peer has not taken is thrown away.
    pub fn now(&self) {
        self.0.notify_one();
    }

    /// What gives up when it is notified, for one who only knows how to notify.
    #[must_use]
    pub fn signal(&self) -> Arc<Notify> {
        Arc::clone(&self.0)
    }

    async fn wanted(&self) {
        self.0.notified().await;
    }
}

fn is_last<B>(answer: &Response<B>) -> bool {
    answer.extensions().get::<Parting>().is_some()
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

#[cfg(test)]
mod tests;
