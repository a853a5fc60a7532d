//! What may run on this host: the part of the configuration that the executor decides by, as one snapshot.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::conf::agent::{Profile, Settings};
use crate::conf::scripts::{Allowlist, Entry};
use crate::wire::name::ScriptName;

/// One snapshot of `agent.conf` and `scripts.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The allowlist.
    pub scripts: BTreeMap<ScriptName, Script>,
    /// Directories that scripts must be in; `None` allows any.
    pub script_dirs: Option<Vec<PathBuf>>,
    /// Profiles by name.
    pub profiles: BTreeMap<String, ProfileLimits>,
    /// Most scripts at the same time.
    pub max_children: usize,
}

impl Policy {
    /// The executor's part of the two configuration files.
    #[must_use]
    pub fn of(settings: &Settings, allowlist: &Allowlist) -> Self {
        let script = |entry: &Entry| Script { path: entry.path().to_owned(), profile: entry.profile().to_string() };
        let limits = |profile: &Profile| ProfileLimits { timeout: profile.timeout, kill_grace: profile.kill_grace };
        Self {
            scripts: allowlist.iter().map(|entry| (entry.name().clone(), script(entry))).collect(),
            script_dirs: settings.script_dirs.clone(),
            profiles: settings.profiles.iter().map(|(name, profile)| (name.to_string(), limits(profile))).collect(),
            max_children: settings.max_children,
        }
    }
}

/// A script of the allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its absolute path, as configured.
    pub path: PathBuf,
    /// Its profile's name.
    pub profile: String,
}

/// What a profile says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLimits {
    /// Longest run; `None` sets no limit.
    pub timeout: Option<Duration>,
    /// Time between asking a script to end and killing it.
    pub kill_grace: Duration,
}
