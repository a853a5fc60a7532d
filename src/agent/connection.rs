//! One connection: admission, handshake, requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::gate::Peer;
use super::route;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::tls::{self, peer};
use crate::wire::limits;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request head may take to arrive, idle time before it included.
const HEAD: Duration = Duration::from_secs(30);

/// Serves a connection to its end. Nothing that the peer does is an error here: it is logged and the connection ends.
pub async fn serve(agent: Arc<Agent>, stream: TcpStream, address: SocketAddr) {
    let ip = address.ip();
    if !agent.admits(ip) {
        return;
    }
    let Some(connection) = agent.connections.take(ip) else { return overloaded(&agent, ip) };
    let mut place = agent.handshakes.enter(ip);
    let acceptor = TlsAcceptor::from(Arc::clone(&agent.snapshot().tls));
    let handshake = tokio::select! {
        biased;
        handshake = timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = place.lost() => return overloaded(&agent, ip),
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return agent.failed(ip, &tls::explain_io(&error)),
        Err(_) => return agent.failed(ip, "the handshake took too long"),
    };
    drop(place);
    match peer::certificate(stream.get_ref().1) {
        Ok(certificate) => {
            let peer = Peer { address: ip, serial: certificate.serial().clone() };
            requests(&agent, stream, peer).await;
        }
        Err(error) => agent.failed(ip, &error.to_string()),
    }
    drop(connection);
}

fn overloaded(agent: &Agent, peer: IpAddr) {
    let event = Event::new(Level::Warning, "overload").field("LIVE", agent.connections.held());
    agent.log().emit(event.field("PEER", peer));
}

async fn requests(agent: &Arc<Agent>, stream: TlsStream<TcpStream>, peer: Peer) {
    let proven = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        let (agent, peer, proven) = (Arc::clone(agent), peer.clone(), Arc::clone(&proven));
        async move {
            let address = peer.address;
            let give_back = || {
                if !proven.swap(true, Ordering::Relaxed) {
                    agent.proven(address);
                }
            };
            route::answer(Arc::clone(&agent), peer, request, give_back).await
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(limits::REQUEST_HEAD);
    // A broken request is answered by hyper where it can be; there is nobody else to tell.
    let _ = http.serve_connection(TokioIo::new(stream), service).await;
}
