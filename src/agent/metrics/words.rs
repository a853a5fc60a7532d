//! The words that label what is counted. There are no others: nothing that a peer says becomes a label.

use hyper::{Method, StatusCode};

use crate::wire::outcome::Outcome;
use crate::wire::refusal::Refusal;

/// How the paths of questions for a result begin.
pub const RESULT: &str = "/result/";
/// How the paths of cancellations begin.
pub const CANCEL: &str = "/cancel/";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `POST /run`.
    Run,
    /// `POST /ping`.
    Ping,
    /// `GET /capabilities`.
    Capabilities,
    /// `GET /result/...`.
    Result,
    /// `POST /cancel/...`.
    Cancel,
    /// `POST /renew`.
    Renew,
    /// `POST /renew-complete`.
    RenewComplete,
    /// `POST /rotate-serial`.
    RotateSerial,
    /// Nothing that this agent knows.
    Unknown,
}

impl Verb {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Run,
        Self::Ping,
        Self::Capabilities,
        Self::Result,
        Self::Cancel,
        Self::Renew,
        Self::RenewComplete,
        Self::RotateSerial,
        Self::Unknown,
    ];

    /// What this method on this path and query asks for.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Self {
        match (method, path) {
            (&Method::POST, "/run") => Self::Run,
            (&Method::POST, "/ping") => Self::Ping,
            (&Method::GET, "/capabilities") => Self::Capabilities,
            (&Method::GET, path) if path.starts_with(RESULT) => Self::Result,
            (&Method::POST, path) if path.starts_with(CANCEL) => Self::Cancel,
            (&Method::POST, "/renew") => Self::Renew,
            (&Method::POST, "/renew-complete") => Self::RenewComplete,
            (&Method::POST, "/rotate-serial") => Self::RotateSerial,
            _ => Self::Unknown,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Ping => "ping",
            Self::Capabilities => "capabilities",
            Self::Result => "result",
            Self::Cancel => "cancel",
            Self::Renew => "renew",
            Self::RenewComplete => "renew-complete",
            Self::RotateSerial => "rotate-serial",
            Self::Unknown => "unknown",
        }
    }

    /// Its name in the words that a hook is asked with: `discovery` and `rotate`, where they differ from [`Verb::as_str`].
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Self::Capabilities => "discovery",
            Self::RotateSerial => "rotate",
            other => other.as_str(),
        }
    }
}

/// What became of a request. In an answer's extensions where its status does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was done; a run was given to the executor.
    Ok,
    /// A rule or the hook does not permit it: the log's `deny`.
    Denied,
    /// The peer's certificate is revoked: `revoked-cert`.
    Revoked,
    /// The peer is no dispatcher that this agent trusts: `serial-reject`.
    Untrusted,
    /// Too many requests at once: `overload`.
    Overload,
    /// A job of the same script or request id runs: `run-async-busy`.
    Busy,
    /// It cannot be understood.
    Invalid,
    /// There is no such job, or no such path.
    NotFound,
    /// The agent or its executor could not do it.
    Failed,
    /// The caller was gone before the answer.
    CallerGone,
}

impl Verdict {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::Denied,
        Self::Revoked,
        Self::Untrusted,
        Self::Overload,
        Self::Busy,
        Self::Invalid,
        Self::NotFound,
        Self::Failed,
        Self::CallerGone,
    ];

    /// What an answer's status says, where nobody has said more.
    #[must_use]
    pub fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::CONFLICT => Self::Busy,
            StatusCode::SERVICE_UNAVAILABLE => Self::Overload,
            status if status.is_success() => Self::Ok,
            status if status.is_client_error() => Self::Invalid,
            _ => Self::Failed,
        }
    }

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Untrusted => "untrusted",
            Self::Overload => "overload",
            Self::Busy => "busy",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Failed => "failed",
            Self::CallerGone => "caller-gone",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With status 0.
    Success,
    /// With another status.
    Failure,
    /// By a signal that was not ours.
    Signalled,
    /// At its time limit.
    TimedOut,
    /// It was cancelled.
    Cancelled,
    /// It used up its memory.
    OutOfMemory,
    /// It printed too much.
    OutputLimit,
    /// It could not be started.
    NotStarted,
    /// Its profile could not be applied.
    NotConfined,
    /// Its caller went away.
    CallerGone,
    /// Its caller stayed and took nothing.
    CallerStalled,
    /// The executor broke.
    ExecutorFailed,
    /// A job of which nobody knows.
    Lost,
}

impl End {
    /// The end that an outcome is.
    ///
    /// # Errors
    /// A run that was refused is none.
    pub const fn of(outcome: &Outcome) -> Result<Self, &Refusal> {
        Ok(match outcome {
            Outcome::Exited { code: 0 } => Self::Success,
            Outcome::Exited { .. } => Self::Failure,
            Outcome::Signalled { .. } => Self::Signalled,
            Outcome::TimedOut { .. } => Self::TimedOut,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::OutOfMemory { .. } => Self::OutOfMemory,
            Outcome::OutputLimit { .. } => Self::OutputLimit,
            Outcome::NotStarted { .. } => Self::NotStarted,
            Outcome::NotConfined { .. } => Self::NotConfined,
            Outcome::Refused(refusal) => return Err(refusal),
        })
    }

    /// The word: the outcome's own, or that of the log or of the job's record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Signalled => "signalled",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out-of-memory",
            Self::OutputLimit => "output-limit",
            Self::NotStarted => "not-started",
            Self::NotConfined => "not-confined",
            Self::CallerGone => "caller-gone",
            Self::CallerStalled => "caller-stalled",
            Self::ExecutorFailed => "executor-failed",
            Self::Lost => "lost",
        }
    }
}

/// Why a connection was not served. The words are the log's actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Its address is not allowed.
    IpBlock,
    /// Its address is blocked.
    RateBlock,
    /// Too many connections or handshakes at once.
    Overload,
    /// The handshake failed.
    TlsFailure,
}

impl Turned {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::IpBlock, Self::RateBlock, Self::Overload, Self::TlsFailure];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpBlock => "ip-block",
            Self::RateBlock => "rate-block",
            Self::Overload => "overload",
            Self::TlsFailure => "tls-failure",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_at_their_numbers() {
        assert!(Verb::ALL.iter().enumerate().all(|(place, verb)| *verb as usize == place));
        assert!(Verdict::ALL.iter().enumerate().all(|(place, verdict)| *verdict as usize == place));
        assert!(Turned::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
    }

    #[test]
    fn whatever_a_peer_asks_for_is_one_of_the_verbs() {
        for (method, path, verb) in [
            (Method::POST, "/run", Verb::Run),
            (Method::GET, "/run", Verb::Unknown),
            (Method::GET, "/result/4f1c?from=3", Verb::Result),
            (Method::POST, "/cancel/x", Verb::Cancel),
            (Method::POST, "/ping?x=1", Verb::Unknown),
            (Method::GET, "/", Verb::Unknown),
        ] {
            assert_eq!(Verb::of(&method, path), verb, "{method} {path}");
        }
    }

    #[test]
    fn a_run_that_was_refused_is_none() {
        assert_eq!(End::of(&Outcome::Exited { code: 0 }), Ok(End::Success));
        assert_eq!(End::of(&Outcome::Exited { code: 1 }), Ok(End::Failure));
        assert!(End::of(&Outcome::Refused(Refusal::new("a", "b"))).is_err());
    }
}
