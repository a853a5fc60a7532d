//! Why a call to an agent failed, in the words that operators know.

use std::error::Error;
use std::io;

use crate::audit::Level;
use crate::tls;
use crate::wire::causes;

/// A failed call. `Display` is what stands in `error` of a result and in `ERROR` of the log.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The resolver does not know the name.
    #[error("host '{host}' did not resolve - check the name or use an IP address")]
    Unresolved {
        /// As dialled.
        host: String,
    },
    /// Nobody listens.
    #[error("host '{host}' did not respond on port {port} - connection refused (agent not running, or wrong port?)")]
    Refused {
        /// As dialled.
        host: String,
        /// As dialled.
        port: u16,
    },
    /// No route.
    #[error("host '{host}' is unreachable - no route to host or network down")]
    Unreachable {
        /// As dialled.
        host: String,
    },
    /// No answer to the connection attempt.
    #[error("host '{host}' did not respond - connection timed out")]
    TimedOut {
        /// As dialled.
        host: String,
    },
    /// The handshake failed.
    #[error("TLS handshake with '{host}' failed - certificate or trust mismatch: {detail}")]
    Tls {
        /// As dialled.
        host: String,
        /// The TLS library's reason.
        detail: String,
    },
    /// The agent proved to be another than the registry's.
    #[error(transparent)]
    Pin(#[from] super::pin::PinError),
    /// The agent does not trust this dispatcher.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// 413.
    #[error("request too large")]
    RequestTooLarge,
    /// 409: something of the same name is under way. The agent's words are told where they are expected.
    #[error("409 Conflict")]
    Conflict {
        /// The agent's text.
        text: String,
        /// Its stable code, if it has one: the original has not.
        reason: Option<String>,
    },
    /// 404: no such job, or no such request. The agent's words are told where they are expected.
    #[error("404 Not Found")]
    NotFound(String),
    /// Another status than 200 and 202.
    #[error("{status}")]
    Turned {
        /// The status.
        status: String,
        /// The agent's stable code, if it gave one.
        reason: Option<String>,
    },
    /// The request could not be made.
    #[error("{0}")]
    Status(String),
    /// No answer within `read_timeout`.
    #[error("read timeout after {0}s")]
    ReadTimeout(u64),
    /// The connection ended before the answer did.
    #[error("connection to '{host}' lost before the answer: {detail}; the outcome is unknown")]
    Lost {
        /// As dialled.
        host: String,
        /// The connection's error.
        detail: String,
    },
    /// A stream ended before the script's end was told.
    #[error("connection to '{host}' lost after the script started; outcome unknown: {detail}")]
    Torn {
        /// As dialled.
        host: String,
        /// What broke.
        detail: String,
    },
    /// Who read the output went away, and the call was ended for that.
    #[error("ended: nobody reads the output any more")]
    Unheard,
    /// Who read the output of other hosts went away before the turn of this one.
    #[error("not asked: nobody reads the output any more")]
    NotAsked,
    /// The answer is larger than the dispatcher takes.
    #[error("answer is larger than {0} bytes")]
    AnswerTooLarge(usize),
    /// The answer is no JSON object.
    #[error("{0}")]
    Malformed(&'static str),
}

impl CallError {
    /// The level of a line about it. That the reader goes away is how many a call is meant to end.
    pub(super) const fn level(&self) -> Level {
        if matches!(self, Self::Unheard | Self::NotAsked) { Level::Info } else { Level::Error }
    }

    /// The agent's own stable code for its refusal, if it gave one.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Conflict { reason, .. } | Self::Turned { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    /// Whether the request may have reached the agent, so that the script may have run or may still run.
    pub(super) const fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::ReadTimeout(_)
                | Self::Lost { .. }
                | Self::Torn { .. }
                | Self::AnswerTooLarge(_)
                | Self::Malformed(_)
                | Self::Unheard
        )
    }

    /// The error of a connection attempt.
    #[must_use]
    pub fn of_connect(host: &str, port: u16, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        let host = host.to_owned();
        match error.kind() {
            Kind::ConnectionRefused => Self::Refused { host, port },
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => Self::Unreachable { host },
            Kind::TimedOut => Self::TimedOut { host },
            _ => Self::Status(format!("cannot connect to '{host}': {error}")),
        }
    }

    /// The error of a handshake.
    #[must_use]
    pub fn of_handshake(host: &str, error: &std::io::Error) -> Self {
        Self::Tls { host: host.to_owned(), detail: tls::explain_io(error) }
    }
}

/// A connection that broke while something was asked on it. In TLS 1.3 the client's handshake is over before the server
/// has judged its certificate, so a refusal arrives here, as an alert instead of the answer.
pub(super) fn of_exchange(host: &str, error: &hyper::Error) -> CallError {
    match causes_of(error).find_map(io_error).filter(|error| is_tls(error)) {
        Some(alert) => CallError::of_handshake(host, alert),
        None => CallError::Lost { host: host.to_owned(), detail: causes::on_one_line(error) },
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
}

/// Whether an HTTP/2 agent says that it has not begun with the request (RFC 9113 8.7).
pub(super) fn is_unserved(error: &hyper::Error) -> bool {
    let refused = |error: &h2::Error| error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    causes_of(error).filter_map(|error| error.downcast_ref::<h2::Error>()).any(refused)
}

fn causes_of(error: &hyper::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| (*error).source())
}

/// h2 keeps the error of its connection to itself, unless it is asked.
fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error.downcast_ref::<io::Error>().or_else(|| error.downcast_ref::<h2::Error>().and_then(h2::Error::get_io))
}
