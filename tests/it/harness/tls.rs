//! A TLS client that says whatever a test wants, with any certificate or none.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::tls::identity::{Identity, IdentitySlot};
use ctrl_exec::tls::{any_name, dispatcher_client, only_http_1};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SignatureScheme, StreamOwned};
use tokio::net::TcpSocket;

use super::DEADLINE;
use super::http::{Answer, Http};
use super::pki::Credentials;

/// A TLS connection as a client has it.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// The beginning of a client's hello, without its end.
pub(crate) const HALF_A_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// A TCP connection with deadlines.
pub(crate) fn tcp(address: SocketAddr) -> TcpStream {
    prepared(TcpStream::connect(address).unwrap())
}

/// A TCP connection from one of this host's own addresses.
pub(crate) fn tcp_from(source: IpAddr, address: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source, 0)).unwrap();
        socket.connect(address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    prepared(stream)
}

/// Says one byte a second until the other end answers or closes; see [`every_second`].
pub(crate) fn drip(stream: &mut (impl Read + Write), byte: u8) -> Vec<u8> {
    let mut seen = vec![0; 4096];
    loop {
        match stream.write_all(&[byte]).and_then(|()| stream.flush()).and_then(|()| stream.read(&mut seen)) {
            Ok(count) => {
                seen.truncate(count);
                return seen;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return Vec::new(),
        }
    }
}

/// Lets a read wait for one second.
pub(crate) fn every_second(tcp: &TcpStream) {
    tcp.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
}

fn prepared(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client's configuration. The server's certificate must be of `ca`.
pub(crate) fn config(ca: &Ca, credentials: Option<&Credentials>) -> ClientConfig {
    let shown = credentials.cloned().unwrap_or_else(|| super::pki::issue(ca, "nobody"));
    let identity = IdentitySlot::new(Identity::load(&shown.cert, &shown.key).unwrap());
    let mut config = ClientConfig::clone(&only_http_1(&dispatcher_client(identity, ca.anchor()).unwrap()));
    if credentials.is_none() {
        config.client_auth_cert_resolver = Arc::new(Nothing);
    }
    config
}

/// The handshake on an open connection. In TLS 1.3 a server that refuses the client's certificate says so only
/// afterwards.
pub(crate) fn handshake(config: ClientConfig, mut tcp: TcpStream) -> std::io::Result<Tls> {
    let mut connection = ClientConnection::new(Arc::new(config), any_name()).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

/// An HTTP connection to an agent.
pub(crate) fn connect(address: SocketAddr, ca: &Ca, credentials: &Credentials) -> Http<Tls> {
    Http::new(handshake(config(ca, Some(credentials)), tcp(address)).unwrap())
}

/// One request as the original's peers send it, on a connection of its own: HTTP/1.0, closed after the answer.
#[track_caller]
pub(crate) fn ask_1_0(address: SocketAddr, ca: &Ca, credentials: &Credentials, path: &str, body: &str) -> Answer {
    let mut http = connect(address, ca, credentials);
    let length = body.len();
    http.send(format!(
        "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let answer = http.answer().unwrap();
    assert!(http.rest().is_empty(), "the connection ends with the answer");
    answer
}

/// Shows no certificate.
#[derive(Debug)]
struct Nothing;

impl ResolvesClientCert for Nothing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
