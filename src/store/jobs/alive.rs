//! Which jobs go on: those whose monitors live, who have their locks; and, where scripts are not confined, those that somebody
//! is left of whose monitor was killed ([`Family`]).
//!
//! [`Family`]: crate::sys::process::Family

use std::collections::BTreeSet;

use super::{JobRecord, Jobs, Key, Part, StoreError};
use crate::sys::file;
use crate::sys::process::Run;
use crate::wire::name::ScriptName;

impl Jobs {
    /// Whether the job's monitor lives, or somebody of its run when that was killed.
    pub fn is_alive(&self, key: &Key) -> Result<bool, StoreError> {
        match file::is_locked(&self.path(key, Part::Status))? {
            None => Ok(false),
            Some(true) => Ok(true),
            Some(false) => {
                Ok(self.outcome(key)?.is_none() && self.members().contains(&Run::of(key.id.as_str().as_bytes())))
            }
        }
    }

    /// The runs of which there are processes.
    pub(super) fn members(&self) -> BTreeSet<Run> {
        // Without /proc nobody can be found.
        self.family.and_then(|family| family.runs().ok()).unwrap_or_default()
    }

    /// Whether the original's process of a job without a status file lives: it holds its script's lock, unless that is
    /// held by a job of ours.
    pub(super) fn is_alive_original(&self, key: &Key, record: &JobRecord) -> Result<bool, StoreError> {
        let ours = file::facts(&self.path(key, Part::Status))?.is_some();
        if ours || ScriptName::parse(&record.script).is_err() {
            return Ok(false);
        }
        let held = file::is_locked(&self.script_lock(&record.script))? == Some(true);
        Ok(held && !self.runs(&record.script)?)
    }

    /// Whether a job of ours runs this script.
    pub(super) fn runs(&self, script: &str) -> Result<bool, StoreError> {
        for (key, parts) in self.entries()? {
            if parts.contains(&Part::Status)
                && self.is_alive(&key)?
                && self.read(&key)?.is_some_and(|record| record.script == script)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
