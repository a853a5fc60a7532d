//! Requests of one connection, in the protocol that its handshake agreed on: HTTP/1.0 and 1.1 for the original and for
//! anything by hand, HTTP/2 between our own ends.
//!
//! A connection lives as long as its peer uses it. HTTP/1 bounds the wait for the next head; HTTP/2 has no such wait,
//! since its frames interleave, so there the time without a request under way is bounded, and a peer that is gone
//! without a word is found by pings (RFC 9113 6.7).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::shared::Shared;
use crate::sys::socket;
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
/// How long a peer may take to part, once told to.
const FAREWELL: Duration = Duration::from_secs(5);
/// How much of what a peer sends after it was refused is taken and thrown away, in bytes.
const WASTE: u64 = 16 * 1024 * 1024;
/// HTTP/1: how often is looked whether the peer of a request under way has hung up.
const LOOK: Duration = Duration::from_secs(1);
/// HTTP/2: how long a peer of whom nothing is under way may take to go, when it is told to because this end leaves.
const GOING: Duration = Duration::from_secs(1);

/// Serves a connection to its end. What breaks a connection is nobody's error here: who waits for an answer hears of it.
///
/// When `leave` is done, the peer is told no more on this connection: requests under way are answered, and where there
/// are none, it ends.
pub async fn serve<A, F, B>(stream: TlsStream<TcpStream>, bounds: Bounds, leave: impl Future<Output = ()>, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if peer::is_http_2(stream.get_ref().1) {
        serve_2(stream, bounds, leave, answer).await;
    } else {
        let hung_up = |stream: &TlsStream<TcpStream>| socket::has_hung_up(stream.get_ref().0);
        http_1(stream, hung_up, bounds, leave, answer).await;
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

/// Serves a connection on which HTTP/1.0 or 1.1 is spoken, to its end or until `leave` is done.
pub async fn serve_1<S, A, F, B>(stream: S, bounds: Bounds, leave: impl Future<Output = ()>, answer: A)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    http_1(stream, |_| false, bounds, leave, answer).await;
}

/// The same over a transport that can tell whether the peer has hung up.
///
/// While a request is under way, nothing is read beyond what came with it: where that is more than the request, its end is
/// not seen by reading.
async fn http_1<S, A, F, B>(
    stream: S,
    hung_up: impl Fn(&S) -> bool,
    bounds: Bounds,
    leave: impl Future<Output = ()>,
    answer: A,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parting, cut) = (Notify::new(), Cut::default());
    let under_way = Arc::new(watch::Sender::new(0_usize));
    let watched = under_way.subscribe();
    let service = service_fn(|mut request| {
        request.extensions_mut().insert(cut.clone());
        let (counted, answer, parting) = (Counted::new(&under_way), answer(request), &parting);
        async move {
            let mut answer = answer.await;
            if is_last(&answer) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                parting.notify_one();
            }
            Ok::<_, Infallible>(answer.map(|body| Held { body, _counted: counted }))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(limits::REQUEST_HEAD);
    let stream = Shared(Mutex::new(stream));
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(&stream), service));
    let mut over = std::pin::pin!(async {
        tokio::select! {
            () = async { parting.notified().await; sleep(FAREWELL).await } => {}
            () = cut.wanted() => {}
            () = lost(watched, || stream.look(&hung_up)) => {}
        }
    });
    tokio::select! {
        ended = &mut connection => return refused(ended, &stream).await,
        () = &mut over => return,
        () = leave => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = &mut connection => refused(ended, &stream).await,
        () = over => {}
    }
}

/// Returns when the peer has hung up on a request that is under way.
async fn lost(mut under_way: watch::Receiver<usize>, has_hung_up: impl Fn() -> bool) {
    loop {
        if under_way.wait_for(|count| *count > 0).await.is_err() {
            return std::future::pending().await;
        }
        sleep(LOOK).await;
        if *under_way.borrow() > 0 && has_hung_up() {
            return;
        }
    }
}

/// Sees to it that a peer learns why its head was refused.
async fn refused(ended: hyper::Result<()>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    if ended.is_err_and(|error| error.is_parse()) {
        part(stream).await;
    }
}

/// Ends a connection whose peer has its last answer, and may not have read it. Where a connection is closed before all was
/// read, the kernel resets it, and the answer may be lost with that: so what still comes is thrown away for a while
/// (RFC 9112 9.6).
pub async fn part(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let parting = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(WASTE), &mut tokio::io::sink()).await
    };
    drop(timeout(FAREWELL, parting).await);
}

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
mod tests {
    use std::time::Instant;

    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use rustls::ClientConfig;
    use tokio::net::TcpListener;
    use tokio::sync::Notify;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::testing::{agent_server, new_ca, now, own};
    use crate::tls::{any_name, dispatcher_client, only_http_1};

    const BOUNDS: Bounds = Bounds { head: Duration::from_millis(50), idle: Duration::from_millis(50), streams: 10 };

    type Served = (tokio_rustls::client::TlsStream<TcpStream>, tokio::task::JoinHandle<()>);

    /// A served connection whose answers wait for the notification.
    async fn served(go: Arc<Notify>, adapt: fn(&ClientConfig) -> Arc<ClientConfig>) -> Served {
        served_until(std::future::pending(), BOUNDS, go, adapt).await
    }

    /// The same, until it is to end.
    async fn served_until(
        leave: impl Future<Output = ()> + Send + 'static,
        bounds: Bounds,
        go: Arc<Notify>,
        adapt: fn(&ClientConfig) -> Arc<ClientConfig>,
    ) -> Served {
        let answer = move |_| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                Response::new(Full::new(Bytes::from_static(b"answer")))
            }
        };
        answered(leave, bounds, adapt, answer).await
    }

    async fn answered<A, F, B>(
        leave: impl Future<Output = ()> + Send + 'static,
        bounds: Bounds,
        adapt: fn(&ClientConfig) -> Arc<ClientConfig>,
        answer: A,
    ) -> Served
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ca = new_ca(now());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(agent_server(own(&ca, "agent"), ca.anchor()));
        let server = tokio::spawn(async move {
            let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            serve(stream, bounds, leave, answer).await;
        });
        let connector = TlsConnector::from(adapt(&dispatcher_client(own(&ca, "dispatcher"), ca.anchor()).unwrap()));
        let client = connector.connect(any_name(), TcpStream::connect(address).await.unwrap()).await.unwrap();
        (client, server)
    }

    /// Endless zeros.
    struct Zeros;

    impl Body for Zeros {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 4096])))))
        }
    }

    #[tokio::test]
    async fn an_exchange_that_is_cut_is_reset_and_its_neighbour_is_not() {
        let cuts = Arc::new(std::sync::Mutex::new(Vec::new()));
        let held = Arc::clone(&cuts);
        let (client, _server) = answered(std::future::pending(), BOUNDS, same, move |request: Request<Incoming>| {
            held.lock().unwrap().push(request.extensions().get::<Cut>().unwrap().clone());
            async { Response::new(Zeros) }
        })
        .await;
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = http.handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let ask = || Request::get("https://agent/").body(Full::<Bytes>::default()).unwrap();
        let first = sender.send_request(ask()).await.unwrap().into_body();
        let mut second = sender.send_request(ask()).await.unwrap().into_body();
        cuts.lock().unwrap().first().unwrap().now();
        assert!(first.collect().await.is_err());
        for _ in 0..1000 {
            second.frame().await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn an_exchange_that_is_cut_ends_an_http_1_connection() {
        let (client, server) = answered(std::future::pending(), BOUNDS, only_http_1, |request: Request<Incoming>| {
            request.extensions().get::<Cut>().unwrap().now();
            async { Response::new(Zeros) }
        })
        .await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let ask = Request::get("/").header("host", "agent").body(Full::<Bytes>::default()).unwrap();
        // Cut before the head of the answer, or behind it.
        if let Ok(answer) = sender.send_request(ask).await {
            assert!(answer.into_body().collect().await.is_err());
        }
        server.await.unwrap();
    }

    fn same(config: &ClientConfig) -> Arc<ClientConfig> {
        Arc::new(config.clone())
    }

    #[tokio::test]
    async fn an_idle_http_2_connection_is_closed_and_one_at_work_is_not() {
        let go = Arc::new(Notify::new());
        let (client, server) = served(Arc::clone(&go), same).await;
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = http.handshake(TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let started = Instant::now();
        let request = Request::post("https://agent/").body(Full::<Bytes>::default()).unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        // Twice the idle limit at work: time is what is tested.
        tokio::time::sleep(BOUNDS.idle * 2).await;
        assert!(!server.is_finished());
        go.notify_one();
        let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"answer");
        connection.await.unwrap().unwrap();
        server.await.unwrap();
        assert!(started.elapsed() >= BOUNDS.idle * 3, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_peer_that_agreed_on_http_2_and_says_nothing_is_parted_with() {
        for adapt in [same, only_http_1] {
            let (_client, server) = served(Arc::default(), adapt).await;
            timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_is_told_to_go_when_its_last_answer_is_sent_or_at_once() {
        let long = Duration::from_mins(5);
        let bounds = Bounds { head: long, idle: long, ..BOUNDS };
        for adapt in [same, only_http_1] {
            let gone = || async {};
            let (_client, server) = served_until(gone(), bounds, Arc::default(), adapt).await;
            timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
        }
        let (go, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let leaving = Arc::clone(&leave);
        let (client, server) =
            served_until(async move { leaving.notified().await }, bounds, Arc::clone(&go), same).await;
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = http.handshake(TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::post("https://agent/").body(Full::<Bytes>::default()).unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        // Besides this test's copy and the server's there is one for each request under way.
        while Arc::strong_count(&go) < 3 {
            tokio::task::yield_now().await;
        }
        leave.notify_one();
        go.notify_one();
        let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"answer");
        connection.await.unwrap().unwrap();
        timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
    }
}
