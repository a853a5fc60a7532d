//! The original's form, towards a dispatcher of the original. Only where the operator asked for it.
//!
//! Its code covers the certificate request and nothing of the dispatcher. So the question of the strong form is not
//! asked here: a yes would prove nothing. What can be checked is checked: the answer must fit together, and the serial
//! to trust must be that of the certificate shown on this connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::failure::PairFailure;
use super::judge::{Answer, Unsound};
use super::strong::{lost, pinned, shown};
use super::{Applying, Paired, Progress};
use crate::net::exchange::Exchange;
use crate::pki::cert::Certificate;
use crate::pki::chain::TrustAnchor;
use crate::pki::{code, csr, key};
use crate::sys::random;
use crate::wire::hex;
use crate::wire::limits::PAIRING_BODY;
use crate::wire::name::RequestId;
use crate::wire::pair::{OriginalAnswer, OriginalRequest};

/// Longest wait for the first answer. The original's looks up names before it answers.
const FIRST: Duration = Duration::from_secs(30);

type Talk = Exchange<TlsStream<TcpStream>>;

/// Pairs with a dispatcher of the original, which signs RSA requests alone: the key is made now that this is known.
pub(super) async fn pair(applying: &Applying<'_>, stream: TlsStream<TcpStream>) -> Result<Paired, PairFailure> {
    (applying.progress)(Progress::Generating);
    let key = tokio::task::spawn_blocking(key::generate_rsa)
        .await
        .map_err(|error| PairFailure::System("no key can be made", std::io::Error::other(error)))??;
    let csr = csr::make(&key, &applying.request.hostname)?;
    let nonce: [u8; 16] = random::bytes().map_err(|error| PairFailure::System("no random numbers", error))?;
    let nonce = hex::encode(&nonce);
    (applying.progress)(Progress::Code(code::original(&csr), true));
    let local = stream.get_ref().0.local_addr().ok().map(|local| local.ip().to_canonical());
    let request = OriginalRequest { applicant: applying.applicant(csr, local), nonce: nonce.clone() };
    let mut talk = Exchange::new(stream);
    talk.send(&http(&request, applying)).await.map_err(|error| lost(applying, &error.into()))?;
    let first = answer(applying, &mut talk, FIRST).await?;
    let reqid = match (first.status.as_str(), first.reqid) {
        ("pending", Some(reqid)) => {
            RequestId::parse(&reqid).map_err(|_| protocol(applying, "its request id is none"))?
        }
        _ => return Err(PairFailure::Rejected(shown(&first.reason.unwrap_or_else(|| "no reason given".to_owned())))),
    };
    (applying.progress)(Progress::Pending(reqid));
    let second = applying.patiently(answer(applying, &mut talk, Duration::MAX)).await?;
    if second.status != "approved" {
        return Err(PairFailure::Denied(shown(&second.reason.unwrap_or_else(|| "denied".to_owned()))));
    }
    if second.nonce.as_deref() != Some(nonce.as_str()) {
        return Err(protocol(applying, "nonce mismatch in pairing result"));
    }
    let paired = accept(applying, &second, &key);
    talk.close().await;
    paired
}

fn accept(applying: &Applying<'_>, second: &OriginalAnswer, key: &key::PrivateKey) -> Result<Paired, PairFailure> {
    let ca = Certificate::from_pem(second.ca.as_deref().unwrap_or_default()).map_err(Unsound::Certificate)?;
    pinned(applying, &ca)?;
    let ca = TrustAnchor::new(ca).map_err(Unsound::Ca)?;
    let answer = Answer {
        cert: second.cert.as_deref().unwrap_or_default(),
        ca: &ca,
        shown: applying.shown,
        dispatcher_serial: second.dispatcher_serial.as_deref().unwrap_or_default(),
        dispatcher_id: second.dispatcher_id.as_deref().unwrap_or_default(),
    };
    let sound = applying.accept(&answer, key)?;
    if sound.trusted().is_none() {
        let text = "the dispatcher named no serial: the trust map was left as it is, and this agent will refuse a \
                    dispatcher that is not in it (\"serial mismatch\")";
        (applying.progress)(Progress::Warning(text.to_owned()));
    }
    let (serial, dispatcher) = sound.trusted().cloned().unzip();
    Ok(Paired { dispatcher, serial, expiry: sound.certificate().expiry_text(), registered: false, original: true })
}

async fn answer(applying: &Applying<'_>, talk: &mut Talk, patience: Duration) -> Result<OriginalAnswer, PairFailure> {
    let body = match timeout(patience, talk.http_body(PAIRING_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return Err(lost(applying, &error)),
        Err(_) => {
            let detail = "no answer came".to_owned();
            return Err(PairFailure::Lost { target: applying.request.dispatcher.clone(), detail });
        }
    };
    serde_json::from_slice(&body).map_err(|_| protocol(applying, "its answer is not the JSON that belongs here"))
}

fn protocol(applying: &Applying<'_>, detail: &str) -> PairFailure {
    PairFailure::Protocol { target: applying.request.dispatcher.clone(), detail: detail.to_owned() }
}

/// Head and body in one piece, so that they leave in one TLS record: the original reads no further.
fn http(request: &OriginalRequest, applying: &Applying<'_>) -> Vec<u8> {
    // A structure of texts and numbers always becomes JSON.
    let body = serde_json::to_vec(request).unwrap_or_default();
    let head = format!(
        "POST /pair HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        applying.request.dispatcher,
        body.len()
    );
    let mut message = head.into_bytes();
    message.extend_from_slice(&body);
    message
}
