//! The agent's call to itself: is it listening, does the handshake work, does it answer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::gate::judge;
use super::snapshot::{self, SnapshotError};
use crate::conf::agent::Settings;
use crate::tls::identity::IdentitySlot;
use crate::tls::{self, TlsError};

/// For each step.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pong {
    /// 200.
    Ok,
    /// 403: the agent's own serial is in no trust map, as it should be.
    Untrusted,
    /// Anything else.
    Other,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SelfPingError {
    /// Nobody listens.
    #[error("Port {}: not listening", .0.port())]
    Closed(SocketAddr),
    /// The agent's own files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// rustls refused the configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The handshake.
    #[error("mTLS handshake failed: {0}")]
    Handshake(String),
    /// The request.
    #[error("Ping response: unexpected - {0}")]
    Request(String),
}

/// What is wrong with a handshake. An agent that closes the connection without a word says why in its log alone.
fn told(error: &io::Error, settings: &Settings, source: Option<IpAddr>) -> String {
    let text = tls::explain_io(error);
    let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind());
    match source.filter(|_| closed) {
        Some(source) if !judge::admits(settings, source) => {
            format!("{text}: 'allowed_ips' leaves out {source}, where this comes from (add it, and reload the agent)")
        }
        Some(source) => format!(
            "{text}: the agent may have blocked {source} ('rate-block' in its log; it ends with its time or a reload), \
             or have no room ('overload')"
        ),
        None => text,
    }
}

/// Pings the agent at `address`.
pub async fn ping(settings: &Settings, address: SocketAddr) -> Result<Pong, SelfPingError> {
    let identity = IdentitySlot::new(snapshot::identity(settings)?);
    let config = tls::only_http_1(&*tls::dispatcher_client(identity, &snapshot::anchor(settings)?)?);
    let closed = || SelfPingError::Closed(address);
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| closed())?;
    let stream = stream.map_err(|_| closed())?;
    let source = stream.local_addr().ok().map(|local| local.ip().to_canonical());
    let handshake = TlsConnector::from(config).connect(tls::any_name(), stream);
    let late = |_| SelfPingError::Handshake("no answer within 5 s".to_owned());
    let handshake = timeout(PATIENCE, handshake).await.map_err(late)?;
    let stream = handshake.map_err(|error: io::Error| SelfPingError::Handshake(told(&error, settings, source)))?;
    let failed = |error: &dyn std::fmt::Display| SelfPingError::Request(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::post("/ping").header("host", address.to_string()).body(Full::new(Bytes::from_static(b"{}")));
    let request = request.map_err(|error| failed(&error))?;
    let answer = timeout(PATIENCE, sender.send_request(request)).await.map_err(|error| failed(&error));
    driver.abort();
    Ok(match answer?.map_err(|error| failed(&error))?.status() {
        StatusCode::OK => Pong::Ok,
        StatusCode::FORBIDDEN => Pong::Untrusted,
        _ => Pong::Other,
    })
}
