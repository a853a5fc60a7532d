//! What the agent's own files say about a script and its arguments.

use crate::agent::sidecar::Sidecars;
use crate::agent::snapshot::Snapshot;
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

impl<'a> Rules<'a> {
    /// The rules of a snapshot.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot) -> Self {
        Self { allowlist: &snapshot.allowlist, sidecars: &snapshot.sidecars, schema: snapshot.settings.schema }
    }

    /// The allowlist's word: the script of this name.
    ///
    /// # Errors
    /// `script-not-permitted`, whether it is not listed or no name at all.
    pub fn listed(&self, script: &str) -> Result<ScriptName, Refusal> {
        let listed = ScriptName::parse(script).ok().filter(|name| self.allowlist.get(name).is_some());
        listed.ok_or_else(|| Refusal::new("script-not-permitted", "script not permitted"))
    }

    /// The contract's word about a listed script's arguments.
    ///
    /// # Errors
    /// As [`Sidecars::judge`].
    pub fn contract(&self, script: &ScriptName, args: &[String]) -> Result<(), Refusal> {
        self.sidecars.judge(script, args, self.schema)
    }
}
