//! One connection: its handshake, and which form of the exchange follows.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::shared::{CROWDED, Shared};
use super::{original, strong};
use crate::audit::{Event, Level};
use crate::net::handshakes::Place;
use crate::tls::{self, peer as tls_peer};

/// Longest handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    (peer, place): (IpAddr, Place),
) {
    let handshake = async {
        // The original's agent looks whether the port is open and goes away again: not worth a word.
        if stream.peek(&mut [0]).await.ok()? == 0 {
            return None;
        }
        Some(acceptor.accept(stream).await)
    };
    let shaken = tokio::select! {
        shaken = timeout(HANDSHAKE, handshake) => shaken,
        () = shared.ended() => return,
        () = place.lost() => return shared.log_rejection(peer, CROWDED, None),
    };
    match shaken {
        Ok(Some(Ok(stream))) if tls_peer::is_own_pairing(stream.get_ref().1) => {
            strong::serve(shared, stream, peer, place).await;
        }
        Ok(Some(Ok(stream))) => original::serve(shared, stream, peer, place).await,
        Ok(Some(Err(error))) => {
            let event = Event::new(Level::Info, "pair-reject").field("IP", peer).field("REASON", "handshake");
            shared.log.emit(event.field("ERROR", tls::explain_io(&error)));
        }
        Ok(None) => {}
        Err(_) => shared.log_rejection(peer, "handshake-timeout", None),
    }
}
