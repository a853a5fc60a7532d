//! Why a host was not paired, in words for its operator.

use super::Request;
use super::judge::Unsound;
use super::keep::KeepError;
use super::target::Target;
use crate::pki::csr::CsrError;
use crate::pki::key::KeyError;
use crate::wire::causes;

/// A pairing that came to nothing. Unless [`PairFailure::Keep`] says otherwise, nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum PairFailure {
    /// The name.
    #[error("could not resolve ctrl-exec hostname '{0}'")]
    Unresolved(String),
    /// The port.
    #[error("cannot reach ctrl-exec at {target}")]
    Unreachable {
        /// Where.
        target: Target,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No handshake.
    #[error("reached {target}, but it is not responding as a pairing listener: {detail}")]
    NotListening {
        /// Where.
        target: Target,
        /// Why.
        detail: String,
    },
    /// No downgrade without being told.
    #[error(
        "{0} pairs only in the original's way, whose 6-digit code protects neither end: whoever can reach the network \
         between the two can pose as either. If this dispatcher really is of the original, and the network can be \
         trusted, repeat the command with --original-pairing"
    )]
    OnlyOriginal(Target),
    /// No key or request could be made.
    #[error("no key can be made")]
    Key(#[from] KeyError),
    /// No certificate request.
    #[error("no certificate request can be made")]
    Csr(#[from] CsrError),
    /// The system's random source, or another of its services.
    #[error("{0}")]
    System(&'static str, #[source] std::io::Error),
    /// The dispatcher broke off.
    #[error("the connection to {target} ended before there was an answer ({detail}): nothing was stored")]
    Lost {
        /// To where.
        target: Target,
        /// How.
        detail: String,
    },
    /// The dispatcher said something else than the exchange has.
    #[error("{target} does not keep to the pairing exchange: {detail}")]
    Protocol {
        /// Who.
        target: Target,
        /// What is wrong.
        detail: String,
    },
    /// The request was not queued.
    #[error("the dispatcher refused the request: {0}")]
    Rejected(String),
    /// The operator there said no.
    #[error("{0}")]
    Denied(String),
    /// Nobody there said anything.
    #[error("nobody at the dispatcher approved or denied the request within {0} s: nothing was stored")]
    TimedOut(u64),
    /// The operator here said no.
    #[error("the codes differ: nothing was stored. Somebody may be posing as the dispatcher")]
    CodeRefused,
    /// Another CA than the pinned one.
    #[error(
        "the dispatcher's CA has the SHA-256 fingerprint {found}, not the one given with --ca-fingerprint: nothing was stored"
    )]
    OtherCa {
        /// Its fingerprint, with colons.
        found: String,
    },
    /// The answer does not fit together.
    #[error("the dispatcher's answer cannot be used: nothing was stored")]
    Unsound(#[from] Unsound),
    /// The files.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl PairFailure {
    pub(super) fn not_a_listener(request: &Request) -> Self {
        let detail = "it showed no certificate".to_owned();
        Self::NotListening { target: request.dispatcher.clone(), detail }
    }

    /// The text for a log, with its causes.
    #[must_use]
    pub fn describe(&self) -> String {
        causes::on_one_line(self)
    }
}
