//! Pairing, the agent's end: ask a dispatcher for a certificate, and store what it sends if it all fits together.
//!
//! # Who is protected from whom
//!
//! The exchange is described in [`crate::pki::code`]. Both ends show the same code, and *both* operators have to
//! compare it, because each end has an attacker of its own:
//!
//! - *A relay between agent and dispatcher* wants a certificate under the agent's name, or the agent itself. The codes of
//!   the two ends differ: the TLS exporter is in them, and a commitment keeps the relay from trying.
//! - *A false dispatcher, alone,* wants an agent that obeys it. It needs nobody's approval but its own, so the *agent's*
//!   operator has to look: the question of [`Confirm`], or a pinned CA.
//! - *A false agent* wants a certificate under a name that is not its own. The *dispatcher's* operator finds no agent
//!   that shows its code.
//! - *Another certificate, key or CA in the answer* would make an agent that fails, or trusts a stranger: [`judge`] checks
//!   everything against everything before a byte is written.
//! - *Another serial to trust* would let somebody else's certificate in: it must be that of the certificate shown on this
//!   very connection, and the CA must have signed that one.
//! - *"We are of the original"* would lead to the weak form, whose code can be forged in seconds: it needs
//!   `--original-pairing` here and its counterpart there.
//!
//! With a pinned CA (`--ca-fingerprint`) nobody is asked here: only a holder of a certificate of that CA can then pose
//! as the dispatcher, and it still cannot get this agent's certificate signed without the dispatcher's operator, who
//! compares the code. Without pin and without terminal the pairing goes on unconfirmed, as the original's always did,
//! with a warning and `CONFIRMED=no` in the log (`pair-confirmation`).
//!
//! # What is stored, and when
//!
//! See [`keep`]: all of it or nothing, also when the process is killed in between.

mod connect;
pub mod failure;
pub mod judge;
pub mod keep;
mod original;
pub mod places;
mod strong;
pub mod target;
pub mod trust_file;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::timeout;

pub use failure::PairFailure;
use places::Places;
use target::Target;

use crate::pki::code::HASH;
use crate::tls::peer as tls_peer;
use crate::wire::name::{AgentName, DispatcherId, RequestId};
use crate::wire::pair::LookupBy;
use crate::wire::serial::Serial;

/// What to ask for, and of whom.
#[derive(Clone, Debug)]
pub struct Request {
    /// The dispatcher.
    pub dispatcher: Target,
    /// The name to be registered under.
    pub hostname: AgentName,
    /// A wish for how to be looked up.
    pub lookup_by: Option<LookupBy>,
    /// The address to report; that of the connection where there is none.
    pub ip: Option<IpAddr>,
    /// Whether a dispatcher of the original will do.
    pub original: bool,
    /// How it is made sure that the dispatcher is the right one.
    pub confirm: Confirm,
    /// Longest wait for the dispatcher's operator; without one, as long as the dispatcher's session lasts.
    pub patience: Option<Duration>,
}

/// Longest wait for the dispatcher's operator in any case: the longest session, and a minute.
const OPERATOR: Duration = Duration::from_mins(11);

/// Asks the operator whether the dispatcher shows this code; blocks.
pub type Question = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// How it is made sure that the dispatcher is the right one.
#[derive(Clone)]
pub enum Confirm {
    /// The operator compares the codes.
    Code(Question),
    /// SHA-256 of the CA certificate (DER).
    Ca([u8; HASH]),
    /// Not at all.
    No,
}

impl Confirm {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Code(_) => "code",
            Self::Ca(_) => "ca",
            Self::No => "no",
        }
    }
}

impl std::fmt::Debug for Confirm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far it has come, for whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Connecting begins.
    Connecting,
    /// A key is being made.
    Generating,
    /// The code to compare; whether it is the original's.
    Code(String, bool),
    /// The request waits for the dispatcher's operator.
    Pending(RequestId),
    /// Something the operator should know.
    Warning(String),
}

/// A pairing that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paired {
    /// The dispatcher's id.
    pub dispatcher: Option<DispatcherId>,
    /// Its trusted serial.
    pub serial: Option<Serial>,
    /// End of the certificate's validity, in OpenSSL's form.
    pub expiry: String,
    /// Whether the dispatcher said that it has registered this agent. The original's never does.
    pub registered: bool,
    /// Whether it was the original's form.
    pub original: bool,
}

/// Pairs with a dispatcher: connects, asks, waits for its operator, checks and stores. It gives up by itself when the
/// dispatcher does; dropping the future gives up earlier, and nothing is stored then.
pub async fn request_pairing(
    request: &Request,
    places: &Places,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Paired, PairFailure> {
    progress(Progress::Connecting);
    let stream = connect::connect(&request.dispatcher).await?;
    let shown = tls_peer::certificate(stream.get_ref().1).map_err(|_| PairFailure::not_a_listener(request))?;
    let applying = Applying { request, places, progress, shown: &shown };
    if tls_peer::is_own_pairing(stream.get_ref().1) {
        strong::pair(&applying, stream).await
    } else if request.original {
        original::pair(&applying, stream).await
    } else {
        Err(PairFailure::OnlyOriginal(request.dispatcher.clone()))
    }
}

/// What both forms work with.
struct Applying<'a> {
    request: &'a Request,
    places: &'a Places,
    progress: &'a (dyn Fn(Progress) + Sync),
    /// The certificate that the dispatcher showed on this connection, and proved to hold the key of.
    shown: &'a crate::pki::cert::Certificate,
}

impl Applying<'_> {
    fn applicant(&self, csr: String, local: Option<IpAddr>) -> crate::wire::pair::Applicant {
        crate::wire::pair::Applicant {
            hostname: self.request.hostname.clone(),
            csr,
            lookup_by: self.request.lookup_by,
            port: Some(self.places.agent_port),
            ip: self.request.ip.or(local),
        }
    }

    /// Gives up a wait for the dispatcher's operator when it has lasted long enough.
    async fn patiently<T>(&self, wait: impl Future<Output = Result<T, PairFailure>>) -> Result<T, PairFailure> {
        let patience = self.request.patience.unwrap_or(OPERATOR);
        timeout(patience, wait).await.unwrap_or(Err(PairFailure::TimedOut(patience.as_secs())))
    }

    /// Checks the answer and stores it.
    fn accept(
        &self,
        answer: &judge::Answer<'_>,
        key: &crate::pki::key::PrivateKey,
    ) -> Result<judge::Sound, PairFailure> {
        let sound = judge::judge(answer, key.public(), &self.request.hostname, OffsetDateTime::now_utc())?;
        let bundle = keep::Bundle::new(&sound, key);
        for warning in keep::store(self.places, &bundle)? {
            (self.progress)(Progress::Warning(warning));
        }
        Ok(sound)
    }
}
