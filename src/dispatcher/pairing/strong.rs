//! The strong form, as [`crate::pki::code`] describes it, from the dispatcher's side.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;

use super::shared::{CROWDED, Rejection, Shared};
use super::waiting::{ENDED, Entry, Fate, Place, judge};
use crate::net::exchange::{Exchange, ExchangeError};
use crate::net::handshakes;
use crate::pki::code::{self, HASH, Transcript};
use crate::store::queue::{Approval, Form};
use crate::sys::random;
use crate::tls::peer as tls_peer;
use crate::wire::limits::PAIRING_BODY;
use crate::wire::pair::{AgentMessage, Applicant, DispatcherMessage, EXPORTER_LABEL, NONCE};
use crate::wire::{frame, hex};

/// Longest time from the handshake to the opened commitment. No person is asked in between.
const EXCHANGE: Duration = Duration::from_secs(10);
/// How long an agent that is refused may take to read that and close.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long an agent has, once the session is over, to say that it had stored its certificate by then.
const LAST_WORD: Duration = Duration::from_secs(2);

struct Talk(Exchange<TlsStream<TcpStream>>);

impl Talk {
    async fn say(&mut self, message: &DispatcherMessage) -> Result<(), ExchangeError> {
        let bytes = frame::encode(message, PAIRING_BODY).map_err(|_| ExchangeError::TooLarge)?;
        self.0.send(&bytes).await.map_err(ExchangeError::Lost)
    }

    async fn hear(&mut self) -> Result<AgentMessage, ExchangeError> {
        let bytes = self.0.frame(PAIRING_BODY).await?;
        frame::decode(&bytes).map_err(|_| ExchangeError::Malformed)
    }

    async fn deny(&mut self, reason: &str) {
        // An agent that is gone needs no reason.
        let _ = self.say(&DispatcherMessage::Denied { reason: reason.to_owned() }).await;
        self.0.close().await;
        // What it is still sending is read away: otherwise the kernel would reset the connection under the answer.
        let _ = timeout(FAREWELL, self.0.gone()).await;
    }
}

/// Serves one agent of ours, to the end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    stream: TlsStream<TcpStream>,
    peer: IpAddr,
    connection: handshakes::Place,
) {
    let mut talk = Talk(Exchange::new(stream));
    let queued = tokio::select! {
        queued = timeout(EXCHANGE, enter(shared, &mut talk, peer)) => queued,
        () = shared.ended() => return talk.deny(ENDED).await,
        () = connection.lost() => {
            shared.log_rejection(peer, CROWDED, None);
            return talk.deny("too many connections at once").await;
        }
    };
    let place = match queued {
        Ok(Ok(place)) => place,
        Ok(Err(rejection)) => {
            shared.log_rejection(peer, rejection.code, rejection.agent.as_deref());
            return talk.deny(&rejection.text).await;
        }
        Err(_) => {
            shared.log_rejection(peer, "exchange-timeout", None);
            return talk.deny("the pairing exchange took too long").await;
        }
    };
    // From here on the queue's own limit holds.
    drop(connection);
    wait(shared, &mut talk, &place).await;
}

/// Hello, challenge, opening, and a place in the queue.
async fn enter(shared: &Arc<Shared>, talk: &mut Talk, peer: IpAddr) -> Result<Place, Rejection> {
    let (applicant, code) = agree(shared, talk, peer).await?;
    let entry = Entry { applicant, nonce: String::new(), code, form: Form::Strong };
    let place = Place::take(shared, peer, entry).await.inspect_err(|_| {
        // No code was shown for this one, so it was no guess.
        shared.admit().answered();
    })?;
    let pending = DispatcherMessage::Pending { reqid: place.id().to_string() };
    talk.say(&pending).await.map_err(|error| unheard(&error))?;
    Ok(place)
}

/// Who asks, and the code that both ends will show.
async fn agree(shared: &Shared, talk: &mut Talk, peer: IpAddr) -> Result<(Applicant, String), Rejection> {
    let broken = || Rejection::new("tls", "no confirmation code can be bound to this connection");
    let exporter = tls_peer::exporter(talk.0.stream().get_ref().1, EXPORTER_LABEL, &[]).map_err(|_| broken())?;
    let AgentMessage::Hello { applicant, commitment } = talk.hear().await.map_err(|error| unheard(&error))? else {
        return Err(Rejection::new("invalid-request", "invalid request: a hello comes first"));
    };
    let agent = applicant.hostname.to_string();
    judge(&applicant)?;
    let commitment = hex::decode::<HASH>(&commitment)
        .ok_or_else(|| Rejection::new("invalid-request", "invalid request: this is no commitment").of(&agent))?;
    if !shared.admit().committed(peer) {
        let text = "too many pairing attempts from this address came to nothing: start pairing mode again and retry";
        return Err(Rejection::new("unopened-commitments", text).of(&agent));
    }
    let mine: [u8; NONCE] = random::bytes().map_err(|_| broken())?;
    let challenge = DispatcherMessage::Challenge { nonce: hex::encode(&mine), ca: shared.ca.to_pem() };
    talk.say(&challenge).await.map_err(|error| unheard(&error))?;
    let AgentMessage::Open { nonce } = talk.hear().await.map_err(|error| unheard(&error))? else {
        return Err(Rejection::new("invalid-request", "invalid request: the nonce comes second").of(&agent));
    };
    let nonce = hex::decode::<NONCE>(&nonce).filter(|nonce| code::opens(&commitment, &exporter, &applicant.csr, nonce));
    let Some(agent_nonce) = nonce else {
        return Err(Rejection::new("commitment", "the nonce does not open the commitment").of(&agent));
    };
    shared.admit().opened(peer);
    let transcript = Transcript {
        exporter: &exporter,
        agent_nonce: &agent_nonce,
        dispatcher_nonce: &mine,
        csr: &applicant.csr,
        dispatcher_key: &shared.own.public_key().sha256(),
        ca: shared.ca.der(),
    };
    let code = transcript.code();
    Ok((applicant, code))
}

fn unheard(error: &ExchangeError) -> Rejection {
    let code = match error {
        ExchangeError::Closed | ExchangeError::Lost(_) => "client-left",
        ExchangeError::TooLarge => "body-too-large",
        ExchangeError::Malformed => "invalid-request",
    };
    Rejection::new(code, error.to_string())
}

async fn wait(shared: &Shared, talk: &mut Talk, place: &Place) {
    match place.fate(talk.hear()).await {
        Fate::Approved(approval) => {
            shared.admit().answered();
            deliver(shared, talk, place, *approval).await;
        }
        Fate::Denied(reason) => {
            shared.admit().answered();
            talk.deny(&reason).await;
        }
        Fate::Ended => talk.deny(ENDED).await,
        Fate::Interrupted(Ok(AgentMessage::Refused { reason })) => {
            place.lost("agent-refused", &reason);
            talk.0.close().await;
        }
        Fate::Interrupted(Ok(_)) => {
            place.lost("invalid-request", "the agent spoke out of turn");
            talk.deny("invalid request: nothing was to be said here").await;
        }
        Fate::Interrupted(Err(_)) => place.lost("client-left", ""),
    }
}

/// Hands the certificate over. The agent is registered when it says that it has stored it, and only then.
async fn deliver(shared: &Shared, talk: &mut Talk, place: &Place, approval: Approval) {
    let answer = approval.answer.clone();
    let approved = DispatcherMessage::Approved {
        cert: answer.cert.unwrap_or_default(),
        dispatcher_serial: answer.dispatcher_serial.unwrap_or_default(),
        dispatcher_id: answer.dispatcher_id.unwrap_or_default(),
    };
    if talk.say(&approved).await.is_err() {
        return place.lost("client-left", "");
    }
    match last_word(shared, talk).await {
        Some(Ok(AgentMessage::Stored)) => {
            if place.register(approval).await {
                // An agent that does not hear this tells its operator so.
                let _ = talk.say(&DispatcherMessage::Registered).await;
            }
            talk.0.close().await;
        }
        Some(Ok(AgentMessage::Refused { reason })) => place.lost("agent-refused", &reason),
        Some(Ok(_)) => place.lost("invalid-request", "the agent spoke out of turn"),
        Some(Err(_)) => place.lost("client-left", ""),
        None => place.lost("session-ended", ENDED),
    }
}

/// What the agent says to its certificate. When the session ends first, the agent is told so, and nothing but the word
/// that it had stored everything already is still heard.
async fn last_word(shared: &Shared, talk: &mut Talk) -> Option<Result<AgentMessage, ExchangeError>> {
    tokio::select! {
        word = talk.hear() => return Some(word),
        () = shared.ended() => {}
    }
    let _ = talk.say(&DispatcherMessage::Denied { reason: ENDED.to_owned() }).await;
    tokio::select! {
        word = talk.hear() => Some(word),
        () = sleep(LAST_WORD) => None,
    }
}
