//! The strong form, as [`crate::pki::code`] describes it, from the agent's side.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::failure::PairFailure;
use super::judge::{self, Answer, Unsound};
use super::{Applying, Confirm, Paired, Progress};
use crate::net::exchange::{Exchange, ExchangeError};
use crate::pki::cert::Certificate;
use crate::pki::chain::TrustAnchor;
use crate::pki::code::{self, HASH, Transcript};
use crate::pki::csr;
use crate::pki::key::{self, PrivateKey};
use crate::sys::random;
use crate::tls::peer as tls_peer;
use crate::wire::limits::PAIRING_BODY;
use crate::wire::name::RequestId;
use crate::wire::pair::{AgentMessage, DispatcherMessage, EXPORTER_LABEL, NONCE};
use crate::wire::{frame, hex};

/// Longest wait for an answer that no person has to give.
const PROMPTLY: Duration = Duration::from_secs(20);

/// The operator's approval, as sent.
struct Approved {
    cert: String,
    dispatcher_serial: String,
    dispatcher_id: String,
}

/// An exchange under way, with what it has brought so far.
struct Talk<'a> {
    exchange: Exchange<TlsStream<TcpStream>>,
    applying: &'a Applying<'a>,
    key: PrivateKey,
    ca: TrustAnchor,
    code: String,
}

/// Pairs with a dispatcher of ours.
pub(super) async fn pair(applying: &Applying<'_>, stream: TlsStream<TcpStream>) -> Result<Paired, PairFailure> {
    let mut talk = agree(applying, stream).await?;
    let DispatcherMessage::Pending { reqid } = talk.hear(PROMPTLY).await? else {
        return Err(talk.protocol("it does not say that the request is pending"));
    };
    let reqid = RequestId::parse(&reqid).map_err(|_| talk.protocol("its request id is none"))?;
    (applying.progress)(Progress::Code(talk.code.clone(), false));
    (applying.progress)(Progress::Pending(reqid));
    let approved = applying.patiently(talk.wait()).await?;
    talk.finish(&approved).await
}

/// Hello, challenge, opening: afterwards both ends know the code.
async fn agree<'a>(applying: &'a Applying<'a>, stream: TlsStream<TcpStream>) -> Result<Talk<'a>, PairFailure> {
    let protocol = |detail: &str| protocol(applying, detail);
    (applying.progress)(Progress::Generating);
    let key = key::generate()?;
    let csr = csr::make(&key, &applying.request.hostname)?;
    let exporter =
        tls_peer::exporter(stream.get_ref().1, EXPORTER_LABEL, &[]).map_err(|error| protocol(&error.to_string()))?;
    let local = stream.get_ref().0.local_addr().ok().map(|local| local.ip().to_canonical());
    let nonce: [u8; NONCE] = random::bytes().map_err(|error| PairFailure::System("no random numbers", error))?;
    let mut exchange = Exchange::new(stream);
    let commitment = hex::encode(&code::commitment(&exporter, &csr, &nonce));
    let hello = AgentMessage::Hello { applicant: applying.applicant(csr.clone(), local), commitment };
    say(applying, &mut exchange, &hello).await?;
    let DispatcherMessage::Challenge { nonce: theirs, ca } = hear(applying, &mut exchange, PROMPTLY).await? else {
        return Err(protocol("it does not answer with a challenge"));
    };
    let theirs = hex::decode::<NONCE>(&theirs).ok_or_else(|| protocol("its nonce is none"))?;
    let ca = challenged(applying, &ca)?;
    say(applying, &mut exchange, &AgentMessage::Open { nonce: hex::encode(&nonce) }).await?;
    let transcript = Transcript {
        exporter: &exporter,
        agent_nonce: &nonce,
        dispatcher_nonce: &theirs,
        csr: &csr,
        dispatcher_key: &applying.shown.public_key().sha256(),
        ca: ca.certificate().der(),
    };
    let code = transcript.code();
    Ok(Talk { exchange, applying, key, ca, code })
}

/// The CA of the challenge: the pinned one, if one is pinned, and the one that signed what the dispatcher shows.
fn challenged(applying: &Applying<'_>, ca: &str) -> Result<TrustAnchor, PairFailure> {
    let ca = Certificate::from_pem(ca).map_err(Unsound::Certificate)?;
    pinned(applying, &ca)?;
    let ca = TrustAnchor::new(ca).map_err(Unsound::Ca)?;
    judge::dispatcher(applying.shown, &ca, time::OffsetDateTime::now_utc())?;
    Ok(ca)
}

/// Whether a CA is the pinned one, where one is pinned.
pub(super) fn pinned(applying: &Applying<'_>, ca: &Certificate) -> Result<(), PairFailure> {
    let found: [u8; HASH] = ca.sha256();
    match &applying.request.confirm {
        Confirm::Ca(wanted) if *wanted != found => {
            let found = found.map(|byte| format!("{byte:02X}")).join(":");
            Err(PairFailure::OtherCa { found })
        }
        _ => Ok(()),
    }
}

impl Talk<'_> {
    /// Waits until both operators have answered, the one here and the one there.
    async fn wait(&mut self) -> Result<Approved, PairFailure> {
        let mut asked = self.ask();
        let mut approved = None;
        loop {
            let confirmed = asked.is_none();
            if let (Some(approved), true) = (approved.take_if(|_| confirmed), confirmed) {
                return Ok(approved);
            }
            let answered = async {
                match &mut asked {
                    // A question that was never answered is a no.
                    Some(answer) => answer.await.unwrap_or(false),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                yes = answered => {
                    asked = None;
                    if !yes {
                        return Err(self.refuse(PairFailure::CodeRefused, "the agent's operator sees another code").await);
                    }
                }
                message = hear(self.applying, &mut self.exchange, Duration::MAX) => match message? {
                    DispatcherMessage::Approved { cert, dispatcher_serial, dispatcher_id } if approved.is_none() => {
                        approved = Some(Approved { cert, dispatcher_serial, dispatcher_id });
                    }
                    _ => return Err(self.protocol("it speaks out of turn")),
                },
            }
        }
    }

    /// Asks the operator, on a thread of its own: whoever reads a terminal cannot be interrupted.
    fn ask(&self) -> Option<oneshot::Receiver<bool>> {
        let Confirm::Code(question) = &self.applying.request.confirm else { return None };
        let (sender, receiver) = oneshot::channel();
        let (question, code) = (question.clone(), self.code.clone());
        // A thread that cannot be started drops the sender, which is a no.
        let _ = std::thread::Builder::new().name("question".to_owned()).spawn(move || {
            // The pairing may be over by now.
            let _ = sender.send(question(&code));
        });
        Some(receiver)
    }

    /// Checks, stores, tells, and hears that this host is registered.
    async fn finish(mut self, approved: &Approved) -> Result<Paired, PairFailure> {
        let answer = Answer {
            cert: &approved.cert,
            ca: &self.ca,
            shown: self.applying.shown,
            dispatcher_serial: &approved.dispatcher_serial,
            dispatcher_id: &approved.dispatcher_id,
        };
        if approved.dispatcher_serial.is_empty() {
            let failure = PairFailure::from(Unsound::Serial(String::new()));
            return Err(self.refuse(failure, "there is no serial to trust").await);
        }
        let sound = match self.applying.accept(&answer, &self.key) {
            Ok(sound) => sound,
            Err(failure) => {
                let reason = failure.describe();
                return Err(self.refuse(failure, &reason).await);
            }
        };
        // From here on this host is paired, whatever becomes of the connection.
        let told = say(self.applying, &mut self.exchange, &AgentMessage::Stored).await;
        let registered = told.is_ok()
            && matches!(hear(self.applying, &mut self.exchange, PROMPTLY).await, Ok(DispatcherMessage::Registered));
        self.exchange.close().await;
        let (serial, dispatcher) = sound.trusted().cloned().unzip();
        Ok(Paired { dispatcher, serial, expiry: sound.certificate().expiry_text(), registered, original: false })
    }

    /// Tells the dispatcher that nothing was stored. It finds out by itself where it cannot be told.
    async fn refuse(&mut self, failure: PairFailure, reason: &str) -> PairFailure {
        let refused = AgentMessage::Refused { reason: reason.to_owned() };
        let _ = say(self.applying, &mut self.exchange, &refused).await;
        self.exchange.close().await;
        failure
    }

    async fn hear(&mut self, patience: Duration) -> Result<DispatcherMessage, PairFailure> {
        hear(self.applying, &mut self.exchange, patience).await
    }

    fn protocol(&self, detail: &str) -> PairFailure {
        protocol(self.applying, detail)
    }
}

fn protocol(applying: &Applying<'_>, detail: &str) -> PairFailure {
    PairFailure::Protocol { target: applying.request.dispatcher.clone(), detail: detail.to_owned() }
}

async fn say(
    applying: &Applying<'_>,
    exchange: &mut Exchange<TlsStream<TcpStream>>,
    message: &AgentMessage,
) -> Result<(), PairFailure> {
    let bytes = frame::encode(message, PAIRING_BODY).map_err(|error| protocol(applying, &error.to_string()))?;
    exchange.send(&bytes).await.map_err(|error| lost(applying, &ExchangeError::Lost(error)))
}

/// The next message; a denial is an error, whenever it comes.
async fn hear(
    applying: &Applying<'_>,
    exchange: &mut Exchange<TlsStream<TcpStream>>,
    patience: Duration,
) -> Result<DispatcherMessage, PairFailure> {
    let bytes = match timeout(patience, exchange.frame(PAIRING_BODY)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(lost(applying, &error)),
        Err(_) => {
            let detail = "no answer came".to_owned();
            return Err(PairFailure::Lost { target: applying.request.dispatcher.clone(), detail });
        }
    };
    match frame::decode(&bytes) {
        Ok(DispatcherMessage::Denied { reason }) => Err(PairFailure::Denied(shown(&reason))),
        Ok(message) => Ok(message),
        Err(error) => Err(protocol(applying, &error.to_string())),
    }
}

/// A peer's text, fit for a terminal.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { '?' } else { c }).collect()
}

pub(super) fn lost(applying: &Applying<'_>, error: &ExchangeError) -> PairFailure {
    let target = applying.request.dispatcher.clone();
    match error {
        ExchangeError::Closed | ExchangeError::Lost(_) => PairFailure::Lost { target, detail: error.to_string() },
        _ => PairFailure::Protocol { target, detail: "a message is too large or malformed".to_owned() },
    }
}
