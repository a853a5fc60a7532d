//! The connection to a pairing listener.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::PairFailure;
use super::target::Target;
use crate::tls::{self, PairingPeers};

/// Longest time for one address to answer.
const DIAL: Duration = Duration::from_secs(5);
/// Longest time for the resolver and for the handshake.
const PATIENCE: Duration = Duration::from_secs(15);

/// Connects and completes the handshake. Who is at the other end is not known yet: any certificate will do, of a peer
/// that holds its key.
pub(super) async fn connect(target: &Target) -> Result<TlsStream<TcpStream>, PairFailure> {
    let stream = dial(target).await?;
    // Those of the original are let through, so that the refusal can say what they are.
    let not_listening = |detail: String| PairFailure::NotListening { target: target.clone(), detail };
    let config = tls::pairing_client(PairingPeers::OwnAndOriginal).map_err(|error| not_listening(error.to_string()))?;
    match timeout(PATIENCE, TlsConnector::from(config).connect(tls::any_name(), stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(not_listening(tls::explain_io(&error))),
        Err(_) => Err(not_listening("no answer".to_owned())),
    }
}

async fn dial(target: &Target) -> Result<TcpStream, PairFailure> {
    let unresolved = || PairFailure::Unresolved(target.host().to_owned());
    let found = timeout(PATIENCE, tokio::net::lookup_host((target.host(), target.port()))).await;
    let mut last = None;
    for address in found.map_err(|_| unresolved())?.map_err(|_| unresolved())? {
        match timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // A socket that refuses TCP_NODELAY is already closed; the handshake says so.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
        }
    }
    let source = last.ok_or_else(unresolved)?;
    Err(PairFailure::Unreachable { target: target.clone(), source })
}
