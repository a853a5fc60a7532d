//! HTTP/2, between our own ends: requests share the connection, and each ends by itself.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::{Bounds, Counted, Cut, FAREWELL, Held, is_last};
use crate::wire::limits;

/// HTTP/2: bytes of a request body in flight, for one request and for the whole connection.
const WINDOWS: (u32, u32) = (64 * 1024, 1024 * 1024);
/// HTTP/2: bytes of an answer that may wait for the connection, for one request.
const UNSENT: usize = 64 * 1024;
/// HTTP/2: a peer is asked for a sign of life after so much silence, and given so much time for it.
const SIGN_OF_LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// HTTP/2: how long a peer of whom nothing is under way may take to go, when it is told to because this end leaves.
const GOING: Duration = Duration::from_secs(1);

/// Serves a connection on which HTTP/2 is spoken, to its end or until `leave` is done.
pub async fn serve_2<S, A, F, B>(stream: S, bounds: Bounds, leave: impl Future<Output = ()>, answer: A)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let (watched, departure) = (under_way.subscribe(), Arc::new(Departure::new(bounds.streams)));
    let (told, answer, still_watched) = (Arc::clone(&departure), Arc::new(answer), watched.clone());
    let service = service_fn(move |mut request| {
        told.hear();
        let (counted, answer, told) = (Counted::new(&under_way), Arc::clone(&answer), Arc::clone(&told));
        async move {
            // Polled within the task that `Streams` started.
            if let Ok(cut) = CUT.try_with(Cut::clone) {
                request.extensions_mut().insert(cut);
            }
            let answer = answer(request).await;
            if is_last(&answer) {
                told.begin();
            }
            Ok::<_, Infallible>(answer.map(|body| Held { body, _counted: counted }))
        }
    });
    let mut http = http2::Builder::new(Streams);
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
        () = departure.began.notified() => {}
        () = leave => {
            connection.as_mut().graceful_shutdown();
            // A request under way may take its time; how much, is for the one who leaves to say.
            tokio::select! {
                _ = connection => {}
                () = idle(still_watched, GOING) => {}
                () = departure.over.notified() => {}
            }
            return;
        }
    }
    connection.as_mut().graceful_shutdown();
    // The last answer is still sent, and a request that came at the same moment still answered.
    tokio::select! {
        _ = timeout(FAREWELL, connection) => {}
        () = departure.over.notified() => {}
    }
}

tokio::task_local! {
    static CUT: Cut;
}

/// Runs each exchange of an HTTP/2 connection as a task of its own, which ends when it is cut: h2 resets a stream whose
/// sender was dropped.
#[derive(Clone, Copy, Debug)]
struct Streams;

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, exchange: F) {
        let cut = Cut::default();
        let exchange = CUT.scope(cut.clone(), exchange);
        tokio::spawn(async move {
            tokio::select! {
                () = exchange => {}
                () = cut.wanted() => {}
            }
        });
    }
}

/// A peer that was told no more on its connection. Until it has acknowledged that, it may go on to ask (RFC 9113 6.8),
/// which one that means harm does as fast as it can.
#[derive(Debug)]
struct Departure {
    began: Notify,
    told: AtomicBool,
    /// Requests that it may still make: they may have been on their way.
    left: AtomicU32,
    over: Notify,
}

impl Departure {
    fn new(most: u32) -> Self {
        Self { began: Notify::new(), told: AtomicBool::new(false), left: AtomicU32::new(most), over: Notify::new() }
    }

    fn begin(&self) {
        self.told.store(true, Ordering::Relaxed);
        self.began.notify_one();
    }

    /// Takes note of a request.
    fn hear(&self) {
        let spend = || self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if self.told.load(Ordering::Relaxed) && spend().is_err() {
            self.over.notify_one();
        }
    }
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
