//! The word of every gate that only looks: what is in force, and what is known of who asks, to a verdict.
//!
//! A connection, a request and an explanation of one have it from here. The rate limit counts and the hook is asked, so
//! they are not here; nobody can explain them but by saying what they would do.

use std::net::IpAddr;

use rustls::ServerConnection;
use rustls::pki_types::UnixTime;

use super::order::Gate;
use super::rules::Rules;
use super::verdict::{Found, Refused, Rejection};
use crate::agent::snapshot::Snapshot;
use crate::conf::agent::Settings;
use crate::pki::revoked::RevocationList;
use crate::pki::trust::TrustMap;
use crate::tls::{self, AgentEnd, Proof};
use crate::wire::name::{DispatcherId, ScriptName};
use crate::wire::serial::Serial;

/// What is in force. What is not there, nobody could look at.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// The address list, and more.
    pub settings: &'a Settings,
    /// The CA.
    pub tls: Option<&'a AgentEnd>,
    /// Who may not ask.
    pub revoked: Option<&'a RevocationList>,
    /// Who may.
    pub trust: Option<&'a TrustMap>,
    /// The scripts.
    pub rules: Rules<'a>,
}

impl<'a> Grounds<'a> {
    /// All of it.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            settings: &snapshot.settings,
            tls: Some(&snapshot.tls),
            revoked: Some(&snapshot.revoked),
            trust: Some(&snapshot.trust),
            rules: Rules::of(snapshot),
        }
    }
}

/// What is known of who asks, and of what is asked.
#[derive(Clone, Debug, Default)]
pub struct Facts<'a> {
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// What it has shown, and the time.
    pub shown: Option<(Shown<'a>, UnixTime)>,
    /// The serial of that.
    pub serial: Option<&'a Serial>,
    /// The script that is to run and its arguments, as the caller has them.
    pub call: Option<(&'a str, &'a [String])>,
    /// The same script, once the allowlist has found it.
    pub listed: Option<ScriptName>,
}

/// A certificate.
#[derive(Clone, Copy, Debug)]
pub enum Shown<'a> {
    /// In a handshake that is just over.
    Now(&'a ServerConnection),
    /// Before; the connection is still the same.
    Before(&'a Proof),
}

/// A gate's verdict; none where something that it judges is not known.
#[must_use]
pub fn judge(gate: Gate, grounds: &Grounds<'_>, facts: &Facts<'_>) -> Option<Result<Found, Refused>> {
    Some(match gate {
        Gate::Address => {
            let admitted = admits(grounds.settings, facts.address?);
            admitted.then_some(Found::Nothing).ok_or(Refused::Address)
        }
        Gate::Handshake => handshake(grounds.tls?, facts.shown.as_ref()?),
        Gate::Revocation => {
            revocation(facts.serial?, grounds.revoked?).map(|()| Found::Nothing).map_err(Refused::Serial)
        }
        Gate::Trust => {
            let known = trust(facts.serial?, grounds.trust?);
            known.map(|id| Found::Dispatcher(id.clone())).map_err(Refused::Serial)
        }
        Gate::Allowlist => grounds.rules.listed(facts.call?.0).map(Found::Listed).map_err(Refused::Allowlist),
        Gate::Contract => {
            let held = grounds.rules.contract(facts.listed.as_ref()?, facts.call?.1);
            held.map(|()| Found::Held).map_err(Refused::Contract)
        }
        Gate::Rate | Gate::Hook => return None,
    })
}

/// Whether anybody may connect from this address.
#[must_use]
pub fn admits(settings: &Settings, peer: IpAddr) -> bool {
    settings.allowed_ips.as_ref().is_none_or(|allowed| allowed.allows(peer))
}

/// Judges a serial alone: revocation, then trust.
pub fn judge_serial<'a>(
    serial: &Serial,
    revoked: &RevocationList,
    map: &'a TrustMap,
) -> Result<&'a DispatcherId, Rejection> {
    revocation(serial, revoked)?;
    trust(serial, map)
}

fn handshake(tls: &AgentEnd, shown: &(Shown<'_>, UnixTime)) -> Result<Found, Refused> {
    let judged = match *shown {
        (Shown::Now(connection), now) => tls.judge(connection, now).map(Found::Certified),
        (Shown::Before(proof), now) => tls.still(proof, now).map(|()| Found::Nothing),
    };
    judged.map_err(|error| Refused::Handshake(tls::explain(&error)))
}

fn revocation(serial: &Serial, revoked: &RevocationList) -> Result<(), Rejection> {
    if revoked.contains(serial) { Err(Rejection::Revoked) } else { Ok(()) }
}

fn trust<'a>(serial: &Serial, map: &'a TrustMap) -> Result<&'a DispatcherId, Rejection> {
    map.get(serial).ok_or(if map.is_empty() { Rejection::NobodyTrusted } else { Rejection::Unknown })
}
