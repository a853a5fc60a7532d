//! The gates, their one order, when each is asked, and which verb has which. All of it is data, and all that is.
//!
//! | stage | when | gates |
//! |---|---|---|
//! | [`Stage::Arrival`] | a connection was accepted | address, rate |
//! | [`Stage::Handshake`] | its handshake is over | handshake |
//! | [`Stage::Request`] | the head of a request is there | address, handshake, revocation, trust map |
//! | [`Stage::Call`] | all of the request is there | allowlist, contract, hook |
//!
//! They are stages of one order, and not four: what a stage asks for the first time stands behind everything that the
//! stages before it have asked. The first two come before there is a request, since whoever is refused by them is to cost
//! no handshake, or nothing beyond it; so they are the beginning of the order for every verb alike. A connection may be kept
//! for an hour, therefore each request begins the order again, with what may have changed since: the address list and the
//! CA. The rate limit counts connections, and is not asked of a request.

use crate::agent::metrics::Verb;

/// One thing that can stop a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `allowed_ips`: who may connect at all.
    Address,
    /// The rate limits: how often a stranger may.
    Rate,
    /// A certificate of the agent's CA that is valid now, and its key.
    Handshake,
    /// The revocation list.
    Revocation,
    /// The trust map: which dispatcher this is.
    Trust,
    /// `scripts.conf`.
    Allowlist,
    /// The script's sidecar: which arguments it takes.
    Contract,
    /// The operator's hook.
    Hook,
}

impl Gate {
    /// All of them, in the order in which they are asked.
    ///
    /// **Invariant:** this is the only place that has the order. Whoever asks gates, or lists them, walks along it.
    pub const ORDER: [Self; 8] = [
        Self::Address,
        Self::Rate,
        Self::Handshake,
        Self::Revocation,
        Self::Trust,
        Self::Allowlist,
        Self::Contract,
        Self::Hook,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Rate => "rate",
            Self::Handshake => "handshake",
            Self::Revocation => "revocation",
            Self::Trust => "trust-map",
            Self::Allowlist => "allowlist",
            Self::Contract => "contract",
            Self::Hook => "hook",
        }
    }
}

/// When gates are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A connection was accepted; nothing was done for it.
    Arrival,
    /// Its handshake is over.
    Handshake,
    /// The head of a request is there. Nothing of it was used, and its body is still to come.
    Request,
    /// All of a trusted peer's request is there.
    Call,
}

impl Stage {
    /// Whether this gate is asked then.
    const fn asks(self, gate: Gate) -> bool {
        match self {
            Self::Arrival => matches!(gate, Gate::Address | Gate::Rate),
            Self::Handshake => matches!(gate, Gate::Handshake),
            Self::Request => matches!(gate, Gate::Address | Gate::Handshake | Gate::Revocation | Gate::Trust),
            Self::Call => matches!(gate, Gate::Allowlist | Gate::Contract | Gate::Hook),
        }
    }
}

/// What every verb has. A path that is no verb has it too: who learns that there is none is trusted.
const PEER: &[Gate] = &[Gate::Address, Gate::Rate, Gate::Handshake, Gate::Revocation, Gate::Trust];
/// With the hook: what shows or changes what the operator may want a word in.
const HOOKED: &[Gate] = &[Gate::Address, Gate::Rate, Gate::Handshake, Gate::Revocation, Gate::Trust, Gate::Hook];

/// The gates of a verb; of none while nothing was asked yet.
#[must_use]
pub const fn row(verb: Option<Verb>) -> &'static [Gate] {
    match verb {
        Some(Verb::Run) => &Gate::ORDER,
        Some(Verb::Capabilities | Verb::RotateSerial) => HOOKED,
        Some(Verb::Ping | Verb::Result | Verb::Cancel | Verb::Renew | Verb::RenewComplete | Verb::Unknown) | None => {
            PEER
        }
    }
}

/// The gates of a verb, in their order.
pub fn of(verb: Verb) -> impl Iterator<Item = Gate> {
    Gate::ORDER.into_iter().filter(move |gate| row(Some(verb)).contains(gate))
}

/// Those of them that are asked at this stage, in their order.
pub(super) fn at(stage: Stage, verb: Option<Verb>) -> impl Iterator<Item = Gate> {
    Gate::ORDER.into_iter().filter(move |gate| stage.asks(*gate) && row(verb).contains(gate))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGES: [Stage; 4] = [Stage::Arrival, Stage::Handshake, Stage::Request, Stage::Call];

    #[test]
    fn the_stages_one_after_the_other_ask_every_gate_in_the_order() {
        for verb in Verb::ALL {
            let mut asked = Vec::new();
            for gate in STAGES.into_iter().flat_map(|stage| at(stage, Some(verb))) {
                if !asked.contains(&gate) {
                    asked.push(gate);
                }
            }
            assert_eq!(asked, of(verb).collect::<Vec<_>>(), "{verb:?}");
            assert_eq!(
                asked,
                row(Some(verb)),
                "a row is in the order, and nothing is in it that no stage asks: {verb:?}"
            );
        }
    }

    #[test]
    fn before_there_is_a_request_everybody_is_asked_the_same() {
        for (stage, verb) in STAGES.into_iter().take(2).flat_map(|stage| Verb::ALL.map(|verb| (stage, verb))) {
            assert!(at(stage, None).eq(at(stage, Some(verb))), "{stage:?} {verb:?}");
        }
    }

    #[test]
    fn each_verb_has_the_gates_that_are_documented() {
        let words = |verb| of(verb).map(Gate::as_str).collect::<Vec<_>>().join(" ");
        let peer = "address rate handshake revocation trust-map";
        for verb in Verb::ALL {
            let rest = match verb {
                Verb::Run => " allowlist contract hook",
                Verb::Capabilities | Verb::RotateSerial => " hook",
                _ => "",
            };
            assert_eq!(words(verb), format!("{peer}{rest}"), "{verb:?}");
        }
    }
}
