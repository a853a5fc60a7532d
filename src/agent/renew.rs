//! `POST /renew` and `POST /renew-complete`: the certificate's key and name stay, its time begins anew.
//!
//! Both serve trusted dispatchers alone, as every other endpoint does. What is renewed is the certificate in the files,
//! which a pairing or a promotion may have replaced since this process read them.
//!
//! A renewed certificate is *staged*: written beside the agent's own state, where it may write. [`super::promote`] puts
//! it in place.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::Value;
use time::OffsetDateTime;

use super::answer::{self, Answer};
use super::gate::{Asked, OfPeer, Passed, TrustedPeer};
use super::metrics::{Verb, Verdict};
use super::present::{Present, PresentError};
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::conf::agent::Settings;
use crate::pki::csr::{self, CsrError};
use crate::pki::renewal::RenewalError;
use crate::sys::file::{self, Access, FileError};
use crate::tls::files::{self, CredentialError};
use crate::wire::causes;
use crate::wire::name::{AgentName, NameError};
use crate::wire::ping;
use crate::wire::renew::{self as wire, FailedReply, RenewReply, StagedReply};

/// Why no request was made. The texts are the original's; the causes stand in the log.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("agent key not available")]
    Key(#[source] CredentialError),
    #[error("could not generate CSR")]
    Certificate(#[source] CredentialError),
    #[error("could not generate CSR: the present certificate has no one common name: pair this host again")]
    Nameless,
    #[error("could not generate CSR: the present certificate's name cannot be renewed: pair this host again")]
    Name(#[source] NameError),
    #[error("could not generate CSR")]
    Make(#[source] CsrError),
}

/// Why a certificate was not staged. The texts are the original's where it has one.
#[derive(Debug, thiserror::Error)]
enum StageError {
    #[error("cert required")]
    Missing,
    #[error(transparent)]
    Present(#[from] PresentError),
    #[error(transparent)]
    Renewed(#[from] RenewalError),
    #[error("could not stage cert")]
    Write(#[source] FileError),
}

/// The request for a certificate request: the id that is echoed.
#[derive(Debug)]
pub struct Renew(Value);

/// The request to stage a certificate: the same, and the certificate.
#[derive(Debug)]
pub struct Complete(Value, Option<String>);

impl OfPeer for Renew {
    const VERB: Verb = Verb::Renew;
}

impl OfPeer for Complete {
    const VERB: Verb = Verb::RenewComplete;
}

/// Reads the one request.
#[must_use]
pub fn ask(body: &[u8]) -> Renew {
    Renew(ping::reqid(body))
}

/// Reads the other.
#[must_use]
pub fn ask_complete(body: &[u8]) -> Complete {
    Complete(ping::reqid(body), wire::certificate(body))
}

/// Answers with a certificate request for the agent's key, under the name in its certificate.
pub async fn renew(agent: &Arc<Agent>, passed: Passed<Renew>) -> Answer {
    let (Asked { peer, snapshot, ask: Renew(reqid) }, ()) = passed.into_parts();
    let work = move |agent: &Agent, say: Say| match request(&snapshot.settings) {
        Ok(csr) => {
            agent.log().emit(say.done("csr-generated"));
            answer::json(StatusCode::OK, &RenewReply::new(csr, say.reqid))
        }
        Err(error) => say.failed(agent, &error, error.to_string()),
    };
    aside(agent, Say { action: "renew", peer, reqid }, work).await
}

/// Judges the certificate that such a request brought, and stages it.
pub async fn complete(agent: &Arc<Agent>, passed: Passed<Complete>) -> Answer {
    let (Asked { peer, snapshot, ask: Complete(reqid, renewed) }, ()) = passed.into_parts();
    let work = move |agent: &Agent, say: Say| match stage(&snapshot.settings, renewed.as_deref()) {
        Ok(()) => {
            agent.log().emit(say.done("cert-staged"));
            answer::json(StatusCode::OK, &StagedReply::new(say.reqid))
        }
        // The one text of the original that holds its cause.
        Err(error @ StageError::Write(_)) => say.failed(agent, &error, causes::on_one_line(&error)),
        Err(error) => say.failed(agent, &error, error.to_string()),
    };
    aside(agent, Say { action: "renew-complete", peer, reqid }, work).await
}

fn request(settings: &Settings) -> Result<String, RequestError> {
    let key = files::key(&settings.key).map_err(RequestError::Key)?;
    let present = files::identity(&settings.cert, &settings.key).map_err(RequestError::Certificate)?;
    let name = present.certificate().common_name().ok_or(RequestError::Nameless)?;
    let name = AgentName::parse(name).map_err(RequestError::Name)?;
    csr::make(&key, &name).map_err(RequestError::Make)
}

fn stage(settings: &Settings, renewed: Option<&str>) -> Result<(), StageError> {
    let renewed = renewed.ok_or(StageError::Missing)?;
    let present = Present::load(&settings.cert, &settings.key, &settings.ca)?;
    let renewed = present.judge(renewed, OffsetDateTime::now_utc())?;
    // Encoded anew: nothing of what was sent but the certificate gets into the file.
    let text = renewed.to_pem();
    file::write_atomic(&settings.cert_staging_path, text.as_bytes(), Access::mode(0o640)).map_err(StageError::Write)
}

/// Does the work, and logs it, also if the caller goes away meanwhile. It signs and waits for the disk, which no
/// connection should wait for.
async fn aside<W>(agent: &Arc<Agent>, say: Say, work: W) -> Answer
where
    W: FnOnce(&Agent, Say) -> Answer + Send + 'static,
{
    let agent = Arc::clone(agent);
    let done = tokio::task::spawn_blocking(move || work(&agent, say)).await;
    // It fails only where the runtime is going down.
    done.unwrap_or_else(|_| answer::error(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping"))
}

/// For whom something is done, and how it is logged.
struct Say {
    action: &'static str,
    peer: TrustedPeer,
    reqid: Value,
}

impl Say {
    fn event(&self, level: Level) -> Event {
        let reqid = self.reqid.as_str().map_or_else(|| self.reqid.to_string(), str::to_owned);
        Event::new(level, self.action)
            .field("PEER", self.peer.address())
            .field("REQID", reqid)
            .maybe("TRACE", self.peer.trace())
    }

    fn done(&self, status: &str) -> Event {
        self.event(Level::Info).field("STATUS", status)
    }

    fn failed(self, agent: &Agent, error: &dyn std::error::Error, text: String) -> Answer {
        agent.log().emit(self.event(Level::Error).field("ERROR", causes::on_one_line(error)));
        answer::judged(answer::json(StatusCode::OK, &FailedReply::new(text, self.reqid)), Verdict::Failed)
    }
}
