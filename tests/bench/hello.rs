//! The floor under a request: a server of the same crates that answers everything with the same few words, and the
//! client that asks it and the agent alike.

use std::convert::Infallible;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Child;

use bytes::Bytes;
use ctrl_exec::tls::{self, only_http_1, peer};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{floor, helper};

/// What our dispatcher sends as a ping.
const PING: &str = r#"{"reqid":"bench"}"#;
/// About what the agent says to it.
const WORDS: &[u8] = br#"{"status":"ok","host":"web","version":"0","expiry":"unknown","reqid":"bench"}"#;

/// The bare server, as a process.
pub(crate) struct Hello(Child);

impl Hello {
    /// With the certificates of the site in this directory. Says where it listens.
    pub(crate) fn start(root: &Path) -> (Self, SocketAddr) {
        let mut child = helper::start("hello", &[&root.display().to_string()]);
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        (Self(child), (Ipv4Addr::LOCALHOST, port.trim().parse().unwrap()).into())
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The helper: `ROOT`.
pub(crate) fn help(words: &[&str]) {
    let [root] = *words else { unreachable!("one word") };
    Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let (acceptor, _) = floor::ends(Path::new(root));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, acceptor.clone()));
        }
    });
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor) {
    stream.set_nodelay(true).unwrap();
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(async |_: Request<Incoming>| {
        let words = Response::builder().header("Content-Type", "application/json").body(Full::new(Bytes::from(WORDS)));
        Ok::<_, Infallible>(words.unwrap())
    });
    // How a connection ends is the client's affair.
    if peer::is_http_2(stream.get_ref().1) {
        let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }
}

/// A dispatcher's connections to one address.
#[derive(Clone)]
pub(crate) struct Client {
    shared: TlsConnector,
    plain: TlsConnector,
    address: SocketAddr,
}

impl Client {
    /// With the certificates of the site in this directory.
    pub(crate) fn new(root: &Path, address: SocketAddr) -> Self {
        let (_, shared) = floor::ends(root);
        let plain = TlsConnector::from(only_http_1(shared.config()));
        Self { shared, plain, address }
    }

    /// A connection to keep.
    pub(crate) async fn keep(&self) -> SendRequest<Full<Bytes>> {
        let stream = self.connect(&self.shared).await;
        let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// A ping on a kept connection.
    pub(crate) async fn ping(&self, sender: &mut SendRequest<Full<Bytes>>) {
        let request = Request::post(format!("https://{}/ping", self.address));
        let request = request.header("Content-Type", "application/json").body(Full::new(Bytes::from(PING))).unwrap();
        sender.ready().await.unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
    }

    /// A connection, a ping, and the end of both.
    pub(crate) async fn fresh_ping(&self) {
        let mut stream = self.connect(&self.plain).await;
        let length = PING.len();
        let head = format!("POST /ping HTTP/1.1\r\nHost: web\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{PING}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }

    /// A connection that says nothing, and its end, which the server comes to only after the handshake.
    pub(crate) async fn handshake(&self) {
        let mut stream = self.connect(&self.plain).await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    }

    async fn connect(&self, connector: &TlsConnector) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        connector.connect(tls::any_name(), stream).await.unwrap()
    }
}
