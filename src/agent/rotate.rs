//! `POST /rotate-serial`: a dispatcher changes which serials stand for it, for its own next certificate.
//!
//! The file is changed first, under its lock, then the snapshot in force takes it up: with the answer the change holds,
//! for this process and for the next. No signal, no new process and no connection is part of it, and the executor has
//! no part in trust.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, Instead};
use super::gate::{Ask, Asked, Consent, Denial, Findings, Gate, Passed, Stopped, TrustedPeer};
use super::metrics::{Verb, Verdict};
use super::pairing::trust_file::{self, TrustFileError};
use super::snapshot::SnapshotError;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::hook::Context;
use crate::pki::rotation::{self, Caller, RotationError};
use crate::wire::causes;
use crate::wire::rotate::{RotateReply, RotateRequest};

/// Why a rotation did not happen.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Refused(#[from] RotationError),
    #[error(transparent)]
    File(#[from] TrustFileError),
    #[error("the trust map was changed, and cannot be read again: the change holds from the next reload on")]
    Read(#[source] SnapshotError),
    #[error("the agent is stopping")]
    Stopping,
}

impl Ask for RotateRequest {
    const VERB: Verb = Verb::RotateSerial;
    type Found = Consent;

    /// The hook sees one spelling of each serial, so that it can compare.
    fn context(&self) -> Option<Context> {
        Some(Context {
            action: Self::VERB.action().to_owned(),
            args: vec![self.action.to_string(), self.serial.to_string()],
            token: self.token.clone(),
            ..Context::default()
        })
    }

    fn found(findings: Findings) -> Result<Consent, Gate> {
        findings.consent()
    }

    fn stopped(agent: &Arc<Agent>, stopped: Stopped<Self>) -> Answer {
        let (peer, refused) = (&stopped.asked.peer, &stopped.refused);
        let reason = refused.denial().map_or(refused.code(), Denial::reason);
        let event =
            Event::new(Level::Warning, "rotate-deny").field("DISPATCHER", peer.id()).maybe("TRACE", peer.trace());
        agent.log().emit(event.field("REASON", reason));
        answer::error(StatusCode::FORBIDDEN, &format!("not authorised: {reason}"))
    }
}

/// Reads a request.
///
/// # Errors
/// The answer to what is none.
pub fn ask(agent: &Agent, peer: &TrustedPeer, body: &[u8]) -> Result<RotateRequest, Instead> {
    RotateRequest::parse(body).map_err(|text| failed(agent, peer, &text).into())
}

/// Changes the caller's own serials.
pub async fn rotate(agent: &Arc<Agent>, passed: Passed<RotateRequest>) -> Answer {
    let (Asked { peer, ask, .. }, _) = passed.into_parts();
    // A task of its own: a caller that goes away must not leave the file changed and the snapshot as it was.
    let work = tokio::spawn(changed(Arc::clone(agent), peer.clone(), ask));
    work.await.unwrap_or_else(|_| failed(agent, &peer, &RotateError::Stopping.to_string()))
}

async fn changed(agent: Arc<Agent>, peer: TrustedPeer, request: RotateRequest) -> Answer {
    if let Err(error) = change(&agent, &peer, &request).await {
        return failed(&agent, &peer, &causes::on_one_line(&error));
    }
    let event = Event::new(Level::Info, "rotate").field("DISPATCHER", peer.id()).field("PEER", peer.address());
    agent.log().emit(
        event.field("SERIAL", &request.serial).field("SERIAL_ACTION", request.action).maybe("TRACE", peer.trace()),
    );
    let reply = RotateReply {
        status: "ok".to_owned(),
        action: request.action,
        serial: request.spelt,
        dispatcher: peer.id().to_string(),
    };
    answer::json(StatusCode::OK, &reply)
}

/// **Invariant:** judged by the map as the file has it under its lock, not as it was when the request came in.
async fn change(agent: &Agent, peer: &TrustedPeer, request: &RotateRequest) -> Result<(), RotateError> {
    let snapshot = agent.snapshot();
    let caller = Caller { serial: peer.serial().clone(), id: peer.id().clone() };
    let (action, serial) = (request.action, request.serial.clone());
    let write = move || {
        let path = &snapshot.settings.trusted_dispatchers_path;
        trust_file::try_update(path, |map| rotation::change(map, &snapshot.revoked, &caller, action, &serial))
    };
    let written = tokio::task::spawn_blocking(write).await.map_err(|_| RotateError::Stopping)?;
    written??;
    agent.trust_again().await.map_err(RotateError::Read)
}

fn failed(agent: &Agent, peer: &TrustedPeer, text: &str) -> Answer {
    let event = Event::new(Level::Error, "rotate-fail").field("DISPATCHER", peer.id()).maybe("TRACE", peer.trace());
    agent.log().emit(event.field("ERROR", text));
    let answer = answer::json(StatusCode::OK, &json!({ "status": "error", "error": text }));
    answer::judged(answer, Verdict::Failed)
}
