//! What gates say, as data. Log lines, answers and explanations are made from it.

use super::order::Gate;
use crate::hook::{Decision, Fault};
use crate::net::rate;
use crate::tls::Proof;
use crate::wire::name::{DispatcherId, ScriptName};
use crate::wire::refusal::Refusal;

/// What a gate that lets through has found out.
#[derive(Debug)]
pub enum Found {
    /// Nothing that a later gate or the verb needs.
    Nothing,
    /// That the peer has a certificate, and of which CA.
    Certified(Proof),
    /// Which dispatcher the peer is.
    Dispatcher(DispatcherId),
    /// The script that is on the allowlist.
    Listed(ScriptName),
    /// Its contract allows the arguments.
    Held,
    /// The hook's consent.
    Consent(Consent),
}

/// Why the hook lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// There is none.
    NoHook,
    /// It was asked and has allowed it.
    Allowed,
}

/// Why the hook does not let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It has said so.
    Denied {
        /// Its exit status, 1 to 255.
        status: u8,
        /// What that means, for the caller and the log.
        reason: String,
    },
    /// It did not get to decide, which denies.
    Failed {
        /// What kept it.
        fault: Fault,
        /// The same in words, for the caller and the log.
        reason: String,
    },
}

impl Denial {
    /// For the caller and the log.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Denied { reason, .. } | Self::Failed { reason, .. } => reason,
        }
    }
}

/// The verdict that a hook's decision is.
pub(super) fn of(decision: Decision) -> Result<Consent, Denial> {
    match decision {
        Decision::Allowed => Ok(Consent::Allowed),
        Decision::Denied { code: status, reason, fault: None } => Err(Denial::Denied { status, reason }),
        Decision::Denied { reason, fault: Some(fault), .. } => Err(Denial::Failed { fault, reason }),
    }
}

/// Which gate refuses, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The address is not allowed.
    Address,
    /// The address is blocked, since before or from now on.
    Rate(rate::Verdict),
    /// There was no handshake; or its certificate does not hold under the CA of this moment. The reason.
    Handshake(String),
    /// The serial of the certificate: revocation list or trust map.
    Serial(Rejection),
    /// The script may not run.
    Allowlist(Refusal),
    /// Not with these arguments.
    Contract(Refusal),
    /// The hook.
    Hook(Denial),
    /// What this gate judges was not known: it refuses what it cannot judge.
    Unjudged(Gate),
}

/// Why a serial is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is on the revocation list.
    Revoked,
    /// It is not in the trust map.
    Unknown,
    /// The trust map is empty: this agent trusts nobody.
    NobodyTrusted,
}

impl Refused {
    /// The gate.
    #[must_use]
    pub const fn gate(&self) -> Gate {
        match self {
            Self::Address => Gate::Address,
            Self::Rate(_) => Gate::Rate,
            Self::Handshake(_) => Gate::Handshake,
            Self::Serial(Rejection::Revoked) => Gate::Revocation,
            Self::Serial(Rejection::Unknown | Rejection::NobodyTrusted) => Gate::Trust,
            Self::Allowlist(_) => Gate::Allowlist,
            Self::Contract(_) => Gate::Contract,
            Self::Hook(_) => Gate::Hook,
            Self::Unjudged(gate) => *gate,
        }
    }

    /// The hook's word, if it is the hook that refuses.
    #[must_use]
    pub const fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Hook(denial) => Some(denial),
            _ => None,
        }
    }

    /// The stable code: that of the log's line, or that of a run's answer.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Address => "ip-block",
            Self::Rate(_) => "rate-block",
            Self::Handshake(_) => "tls-failure",
            Self::Serial(Rejection::Revoked) => "revoked-cert",
            Self::Serial(Rejection::Unknown | Rejection::NobodyTrusted) => "serial-reject",
            Self::Allowlist(refusal) | Self::Contract(refusal) => refusal.code(),
            Self::Hook(_) => "not-authorised",
            Self::Unjudged(_) => "not-judged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_did_not_get_to_decide_is_told_from_one_that_has_denied() {
        let denied = |code, fault| of(Decision::Denied { code, reason: "why".to_owned(), fault });
        let reason = || "why".to_owned();
        assert_eq!(of(Decision::Allowed), Ok(Consent::Allowed));
        assert_eq!(denied(77, None), Err(Denial::Denied { status: 77, reason: reason() }));
        for fault in [
            Fault::NotExecutable,
            Fault::Untrusted,
            Fault::NotStarted,
            Fault::NotWaitedFor,
            Fault::Killed,
            Fault::TimedOut(3),
        ] {
            assert_eq!(denied(1, Some(fault)), Err(Denial::Failed { fault, reason: reason() }));
        }
    }

    #[test]
    fn every_gate_refuses_under_its_own_name() {
        let refusal = || Refusal::new("x-y", "why");
        let refused = [
            Refused::Address,
            Refused::Rate(rate::Verdict::Blocked),
            Refused::Handshake(String::new()),
            Refused::Serial(Rejection::Revoked),
            Refused::Serial(Rejection::Unknown),
            Refused::Allowlist(refusal()),
            Refused::Contract(refusal()),
            Refused::Hook(Denial::Denied { status: 1, reason: String::new() }),
        ];
        assert!(refused.iter().map(Refused::gate).eq(Gate::ORDER));
        assert!(Gate::ORDER.into_iter().all(|gate| Refused::Unjudged(gate).gate() == gate));
    }
}
