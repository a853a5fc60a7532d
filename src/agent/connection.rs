//! One connection: admission, handshake, requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::gate::{self, Peer, Refused};
use super::kept::Kept;
use super::metrics::{Counted, Turned, Verb, Verdict};
use super::route;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::net::handshakes::Place;
use crate::net::serve::{self as net, Bounds, Unreadable};
use crate::net::slots::Slot;
use crate::sys::{clock, socket};
use crate::tls;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How much longer than `stall_timeout` the kernel waits for a peer who takes nothing.
const KERNEL: Duration = Duration::from_secs(5);
/// How long a request head may take to arrive, idle time before it included.
const HEAD: Duration = Duration::from_secs(30);
/// How long a kept connection may be idle: long enough for a check that comes every minute.
const IDLE: Duration = Duration::from_mins(5);
/// How long a connection may be kept at most: that its peer holds the key is proven anew that often.
const KEPT: Duration = Duration::from_hours(1);
/// How long the first request of a connection may take to come, once the agent wants to leave.
const FIRST: Duration = Duration::from_secs(1);
/// Requests of one connection beyond `max_children`: those are answered, with a refusal, instead of waiting unseen.
const BEYOND: u32 = 32;

/// What an admitted connection holds: its place among all, and among the handshakes.
#[derive(Debug)]
pub struct Admission {
    connection: Slot,
    handshake: Place,
}

/// Judges a new connection by its address.
///
/// **Invariant:** called in the order of acceptance, so that the oldest handshake is the one that came first.
pub async fn admit(agent: &Agent, peer: IpAddr) -> Option<Admission> {
    if let Err(refused) = gate::arrives(agent, peer).await {
        refused.turn_away(agent, peer);
        return None;
    }
    let Some(connection) = agent.connections.take(peer) else {
        overloaded(agent, peer);
        return None;
    };
    Some(Admission { connection, handshake: agent.handshakes.enter(peer, agent.is_known(peer)) })
}

/// Serves a connection to its end. Nothing that the peer does is an error here: it is logged and the connection ends.
pub async fn serve(agent: Arc<Agent>, admission: Admission, stream: TcpStream, address: SocketAddr) {
    let ip = address.ip();
    let Admission { connection, handshake: place } = admission;
    let snapshot = agent.snapshot();
    // What waits in the kernel is no answer's any more, and has the same end; later, since what is an answer's still has an end
    // that says why. One that will not have it lives by its others.
    let patience = snapshot.settings.stall_timeout.saturating_add(KERNEL);
    drop(socket::end_when_stalled(&stream, patience));
    let acceptor = TlsAcceptor::from(snapshot.tls.config());
    drop(snapshot);
    let handshake = tokio::select! {
        biased;
        handshake = timeout(HANDSHAKE, acceptor.accept(stream)) => handshake,
        () = place.lost() => {
            // A dispatcher that opens very many connections at once is still no stranger.
            if !agent.is_known(ip) {
                agent.unproven(ip);
            }
            return overloaded(&agent, ip);
        }
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Refused::Handshake(tls::explain_io(&error)).turn_away(&agent, ip),
        Err(_) => return Refused::Handshake("the handshake took too long".to_owned()).turn_away(&agent, ip),
    };
    drop(place);
    match gate::shows(&agent, ip, stream.get_ref().1, UnixTime::now()).await {
        Ok((peer, not_after)) => {
            let term = term(not_after, clock::now().into());
            requests(&agent, stream, peer, term).await;
        }
        Err(refused) => refused.turn_away(&agent, ip),
    }
    drop(connection);
}

fn overloaded(agent: &Agent, peer: IpAddr) {
    let event = Event::new(Level::Warning, "overload").field("LIVE", agent.connections.held());
    agent.log().emit(event.field("PEER", peer));
    agent.metrics.turned_away(Turned::Overload);
}

/// Whether this is the agent's own `self-ping`: its own key, at an address of its own. The certificate may be a renewed one
/// that this process has not taken up yet. Whoever is blocked for it is also the dispatcher on this host. It decides about
/// the rate limit alone, never about trust.
fn is_own(agent: &Agent, peer: &Peer, stream: &TlsStream<TcpStream>) -> bool {
    let (tcp, end) = stream.get_ref();
    let here = tcp.local_addr().is_ok_and(|local| local.ip().to_canonical() == peer.address);
    here && tls::peer::certificate(end).is_ok_and(|shown| *shown.public_key() == agent.snapshot().key)
}

/// How long a connection may be kept: never beyond the end of its peer's certificate.
fn term(not_after: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(not_after - now).unwrap_or_default().min(KEPT)
}

async fn requests(agent: &Arc<Agent>, stream: TlsStream<TcpStream>, peer: Peer, term: Duration) {
    let address = peer.address;
    // Each rejection counts as a connection of its own: one that stays open is no way round the limit.
    let judged = Arc::new(watch::Sender::new(false));
    let (serving, heard) = (Arc::clone(agent), Arc::clone(&judged));
    let party = gate::asks(agent, &peer, None, UnixTime::now()).await.ok().map(|trusted| trusted.id().clone());
    // Whoever has just shown a trusted dispatcher's key is no stranger, whatever becomes of the request: it may be idle,
    // cut off, or unreadable. What is asked is judged on its own all the same.
    let proven = party.is_some();
    let own = !proven && is_own(agent, &peer, &stream);
    if proven {
        agent.proven(address);
    }
    let kept = Kept::new(&agent.idle, party);
    let on = Arc::clone(&kept);
    let answer = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&on));
        let (agent, peer, judged) = (Arc::clone(&serving), peer.clone(), Arc::clone(&heard));
        async move {
            let hear = |trusted: bool| {
                judged.send_replace(true);
                if trusted {
                    agent.proven(address);
                } else if !own {
                    agent.unproven(address);
                }
            };
            route::answer(Arc::clone(&agent), peer, request, hear).await
        }
    };
    let leave = timeout(term, leave(agent.leaving.subscribe(), judged.subscribe()));
    let leave = async { drop(leave.await) };
    tokio::select! {
        unreadable = net::serve(stream, bounds(agent), leave, answer) => {
            if let Some(Unreadable(reason)) = unreadable {
                malformed(agent, address, &reason);
            }
        }
        () = kept.one_too_many() => overloaded(agent, address),
    }
    if !proven && !own && !*judged.borrow() {
        agent.unproven(address);
    }
}

/// What came was no request, and was answered. It was the last on its connection, so there is one such line for each.
fn malformed(agent: &Agent, peer: IpAddr, reason: &str) {
    agent.log().emit(Event::new(Level::Warning, "request-malformed").field("PEER", peer).field("REASON", reason));
    Counted::new(Arc::clone(&agent.metrics), Verb::Unknown).answered(Verdict::Invalid);
}

/// When a connection is to end because the agent leaves: at once, but for one on which nothing was asked yet. Who has
/// just made it is about to, and could not know better.
async fn leave(mut leaving: watch::Receiver<bool>, mut judged: watch::Receiver<bool>) {
    if leaving.wait_for(|leaving| *leaving).await.is_ok() {
        // Either way it is time.
        let _ = timeout(FIRST, judged.wait_for(|judged| *judged)).await;
    }
}

fn bounds(agent: &Agent) -> Bounds {
    let most = u32::try_from(agent.snapshot().settings.max_children).unwrap_or(u32::MAX);
    Bounds { head: HEAD, idle: IDLE, streams: most.saturating_add(BEYOND) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_connection_is_kept_beyond_the_end_of_its_peers_certificate_or_for_long() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert_eq!(term(now + Duration::from_secs(90), now), Duration::from_secs(90));
        assert_eq!(term(now + Duration::from_hours(24), now), KEPT);
        assert_eq!(term(now - Duration::from_secs(1), now), Duration::ZERO);
    }
}
