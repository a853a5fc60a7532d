//! The original's form: one HTTP/1.0 request, two HTTP answers to it on one connection.
//!
//! Its code covers the certificate request alone, and nothing of this dispatcher: a relay can forge it. That is why it
//! is accepted only where the operator said so.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::shared::{CROWDED, Rejection, Shared};
use super::waiting::{ENDED, Entry, Fate, Place, judge};
use crate::net::exchange::{Exchange, ExchangeError};
use crate::net::handshakes;
use crate::pki::code;
use crate::store::queue::{Approval, Form};
use crate::wire::limits::PAIRING_BODY;
use crate::wire::pair::{OriginalAnswer, OriginalRequest, Unreadable};

/// Longest time for head and body together.
const REQUEST: Duration = Duration::from_secs(10);
/// How long a client that has its whole answer may take to close before it counts as served.
const FAREWELL: Duration = Duration::from_secs(1);
/// What an agent of the original is told where such agents are not accepted.
const NOT_ACCEPTED: &str = "this dispatcher does not accept the original's way of pairing: start it with 'pairing-mode \
                            --original' or set 'pairing_original = yes', or upgrade this agent";

type Talk = Exchange<TlsStream<TcpStream>>;

/// Serves one agent of the original, to the end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TlsStream<TcpStream>,
    peer: IpAddr,
    connection: handshakes::Place,
) {
    let mut talk = Exchange::new(stream);
    let queued = tokio::select! {
        queued = timeout(REQUEST, enter(shared, &mut talk, peer)) => queued,
        () = shared.ended() => return say(&mut talk, &denied(ENDED)).await,
        () = connection.lost() => {
            shared.log_rejection(peer, CROWDED, None);
            return say(&mut talk, &OriginalAnswer::error("too many connections at once")).await;
        }
    };
    let place = match queued {
        Ok(Ok(place)) => place,
        Ok(Err(rejection)) => {
            shared.log_rejection(peer, rejection.code, rejection.agent.as_deref());
            return say(&mut talk, &OriginalAnswer::error(&rejection.text)).await;
        }
        Err(_) => {
            shared.log_rejection(peer, "request-timeout", None);
            return say(&mut talk, &OriginalAnswer::error("request timed out")).await;
        }
    };
    drop(connection);
    match place.fate(talk.gone()).await {
        Fate::Approved(approval) => deliver(&mut talk, &place, *approval).await,
        Fate::Denied(reason) => say(&mut talk, &denied(&reason)).await,
        Fate::Ended => say(&mut talk, &denied(ENDED)).await,
        Fate::Interrupted(()) => place.lost("client-left", ""),
    }
}

async fn enter(shared: &Arc<Shared>, talk: &mut Talk, peer: IpAddr) -> Result<Place, Rejection> {
    let body = talk.http_body(PAIRING_BODY).await.map_err(|error| unheard(&error))?;
    if !shared.original {
        return Err(Rejection::new("original-form", NOT_ACCEPTED));
    }
    let request = OriginalRequest::parse(&body).map_err(|why| match why {
        Unreadable::Request => Rejection::new("invalid-request", "invalid request"),
        Unreadable::Hostname => Rejection::new("invalid-hostname", "invalid hostname"),
    })?;
    judge(&request.applicant)?;
    let code = code::original(&request.applicant.csr);
    let entry = Entry { applicant: request.applicant, nonce: request.nonce, code, form: Form::Original };
    let place = Place::take(shared, peer, entry).await?;
    let pending = OriginalAnswer {
        status: "pending".to_owned(),
        reqid: Some(place.id().to_string()),
        ..OriginalAnswer::default()
    };
    talk.send(&http(&pending)).await.map_err(|error| unheard(&ExchangeError::Lost(error)))?;
    Ok(place)
}

fn unheard(error: &ExchangeError) -> Rejection {
    match error {
        ExchangeError::Closed | ExchangeError::Lost(_) => Rejection::new("client-left", "request incomplete"),
        ExchangeError::TooLarge => Rejection::new("body-too-large", "request too large"),
        ExchangeError::Malformed => Rejection::new("invalid-request", "invalid request"),
    }
}

/// This form has no word for "stored": an agent that took the whole answer and then closed, or kept still, has it.
async fn deliver(talk: &mut Talk, place: &Place, approval: Approval) {
    if talk.send(&http(&approval.answer)).await.is_err() {
        return place.lost("client-left", "");
    }
    let _ = timeout(FAREWELL, talk.gone()).await;
    place.register(approval).await;
    talk.close().await;
}

async fn say(talk: &mut Talk, answer: &OriginalAnswer) {
    // A client that is gone needs no answer.
    let _ = talk.send(&http(answer)).await;
    talk.close().await;
    // What it is still sending is read away: otherwise the kernel would reset the connection under the answer.
    let _ = timeout(FAREWELL, talk.gone()).await;
}

fn denied(reason: &str) -> OriginalAnswer {
    OriginalAnswer { status: "denied".to_owned(), ..OriginalAnswer::error(reason) }
}

/// Head and body in one piece, so that they leave in one TLS record: the original's client reads no further.
fn http(answer: &OriginalAnswer) -> Vec<u8> {
    // A structure of texts always becomes JSON.
    let body = serde_json::to_vec(answer).unwrap_or_default();
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(&body);
    message
}
