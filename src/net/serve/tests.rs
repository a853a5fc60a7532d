//! Both protocols over real TLS.

use std::convert::Infallible;
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::tls::testing::{agent_server, new_ca, now, own};
use crate::tls::{any_name, dispatcher_client, only_http_1};

/// So short that one who says nothing is parted with soon.
const SHORT: Bounds = Bounds { head: Duration::from_millis(50), idle: Duration::from_millis(50), streams: 10 };
/// So long that no machine is too slow to say something in time.
const LONG: Bounds = Bounds { head: Duration::from_mins(5), idle: Duration::from_mins(5), streams: 10 };
/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_mins(1);

type Served = (tokio_rustls::client::TlsStream<TcpStream>, tokio::task::JoinHandle<()>);

/// A served connection whose answers wait for the notification.
async fn served(bounds: Bounds, go: Arc<Notify>, adapt: fn(&ClientConfig) -> Arc<ClientConfig>) -> Served {
    served_until(std::future::pending(), bounds, go, adapt).await
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
    let (client, _server) = answered(std::future::pending(), LONG, same, move |request: Request<Incoming>| {
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
    let (client, server) = answered(std::future::pending(), LONG, only_http_1, |request: Request<Incoming>| {
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
    let limits = std::iter::successors(Some(SHORT.idle), |idle| Some(*idle * 4));
    for idle in limits.take_while(|idle| *idle < PATIENCE) {
        if is_closed_when_idle_and_not_at_work(Bounds { idle, ..LONG }).await {
            return;
        }
    }
    panic!("no request ever came before its connection was idle for too long");
}

/// Nothing is told where this machine was so busy that the connection was closed before its request came.
async fn is_closed_when_idle_and_not_at_work(bounds: Bounds) -> bool {
    let go = Arc::new(Notify::new());
    let (client, mut server) = served(bounds, Arc::clone(&go), same).await;
    let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let Ok((mut sender, connection)) = http.handshake(TokioIo::new(client)).await else { return false };
    let connection = tokio::spawn(connection);
    let request = Request::post("https://agent/").body(Full::<Bytes>::default()).unwrap();
    let answer = tokio::spawn(sender.send_request(request));
    // Besides this copy and the server's there is one for each request under way.
    while Arc::strong_count(&go) < 3 {
        if server.is_finished() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    // Twice the idle limit at work: time is what is tested.
    assert!(timeout(bounds.idle * 2, &mut server).await.is_err(), "closed at work");
    go.notify_one();
    let body = answer.await.unwrap().unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"answer");
    connection.await.unwrap().unwrap();
    server.await.unwrap();
    assert!(started.elapsed() >= bounds.idle * 3, "{:?}", started.elapsed());
    true
}

#[tokio::test]
async fn a_peer_that_agreed_on_http_2_and_says_nothing_is_parted_with() {
    for adapt in [same, only_http_1] {
        let (_client, server) = served(SHORT, Arc::default(), adapt).await;
        timeout(PATIENCE, server).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_peer_is_told_to_go_when_its_last_answer_is_sent_or_at_once() {
    for adapt in [same, only_http_1] {
        let gone = || async {};
        let (_client, server) = served_until(gone(), LONG, Arc::default(), adapt).await;
        timeout(PATIENCE, server).await.unwrap().unwrap();
    }
    let (go, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let leaving = Arc::clone(&leave);
    let (client, server) = served_until(async move { leaving.notified().await }, LONG, Arc::clone(&go), same).await;
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
    timeout(PATIENCE, server).await.unwrap().unwrap();
}
