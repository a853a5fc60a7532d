//! What the agent's own files say about a call, gate by gate: allowlist, then argument contract. A run and an explanation
//! of one ask the same function, which answers with every gate's verdict; a run needs the first that refuses.

use super::sidecar::Sidecars;
use crate::conf::agent::Schema;
use crate::conf::scripts::Allowlist;
use crate::wire::name::ScriptName;
use crate::wire::refusal::Refusal;

/// What calls are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The scripts that may run.
    pub allowlist: &'a Allowlist,
    /// What stands beside them.
    pub sidecars: &'a Sidecars,
    /// Whether their contracts are held.
    pub schema: Schema,
}

/// A gate of the agent's own files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `scripts.conf`.
    Allowlist,
    /// The script's sidecar.
    Contract,
}

impl Gate {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowlist => "allowlist",
            Self::Contract => "contract",
        }
    }
}

/// What the gates say: the allowlist names a script or refuses, and of a script that it names, the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement(Result<(ScriptName, Result<(), Refusal>), Refusal>);

impl Rules<'_> {
    /// Judges a call.
    #[must_use]
    pub fn judge(&self, script: &str, args: &[String]) -> Judgement {
        let listed = ScriptName::parse(script).ok().filter(|name| self.allowlist.get(name).is_some());
        let name = listed.ok_or_else(|| Refusal::new("script-not-permitted", "script not permitted"));
        Judgement(name.map(|name| {
            let contract = self.sidecars.judge(&name, args, self.schema);
            (name, contract)
        }))
    }
}

impl Judgement {
    /// The verdict of each gate that was asked, in their order.
    #[must_use]
    pub fn gates(&self) -> Vec<(Gate, Result<(), &Refusal>)> {
        match &self.0 {
            Err(refusal) => vec![(Gate::Allowlist, Err(refusal))],
            Ok((_, Ok(()))) => vec![(Gate::Allowlist, Ok(())), (Gate::Contract, Ok(()))],
            Ok((_, Err(refusal))) => vec![(Gate::Allowlist, Ok(())), (Gate::Contract, Err(refusal))],
        }
    }

    /// The script, if it is listed.
    #[must_use]
    pub const fn script(&self) -> Option<&ScriptName> {
        match &self.0 {
            Ok((name, _)) => Some(name),
            Err(_) => None,
        }
    }

    /// The script that may be ordered.
    ///
    /// # Errors
    /// The first gate that refuses, and its refusal.
    pub fn into_result(self) -> Result<ScriptName, (Gate, Refusal)> {
        let (name, contract) = self.0.map_err(|refusal| (Gate::Allowlist, refusal))?;
        contract.map(|()| name).map_err(|refusal| (Gate::Contract, refusal))
    }
}
