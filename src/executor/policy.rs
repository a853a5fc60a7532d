//! What may run on this host: the part of the configuration that the executor decides by, as one snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::confinement::Confinements;
use super::host::OnDisk;
use super::pins::Pins;
use crate::conf::agent::{self, Loaded, Profile};
use crate::conf::scripts::Entry;
use crate::conf::{Root, Source};
use crate::sys::file;
use crate::wire::causes;
use crate::wire::name::ScriptName;

/// Largest configuration file that is read, in bytes: more than the parser takes, so that the parser says so.
const LIMIT: usize = 2 * 1024 * 1024;

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
    /// What a root executor applies; nothing under a private one.
    pub confinements: Option<Confinements>,
}

/// A script of the allowlist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its absolute path, as configured.
    pub path: PathBuf,
    /// Its profile's name.
    pub profile: String,
    /// What else its line pins.
    pub pins: Pins,
}

/// What a profile says about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLimits {
    /// Longest run; `None` sets no limit.
    pub timeout: Option<Duration>,
    /// Time between asking a script to end and killing it.
    pub kill_grace: Duration,
}

impl Policy {
    /// Reads both files as one snapshot.
    ///
    /// # Errors
    /// Every fault of either file with its place, for people.
    pub fn load(config: &Path, allowlist: &Path, root: &Root) -> Result<Self, String> {
        read(config, allowlist, root).map(|loaded| Self::of(&loaded))
    }

    /// As [`Policy::load`], for a root executor.
    ///
    /// # Errors
    /// As [`Policy::load`], and every profile that a root executor must not apply.
    pub fn load_confined(config: &Path, allowlist: &Path, root: &Root) -> Result<Self, String> {
        let loaded = read(config, allowlist, root)?;
        let confinements = Confinements::new(&loaded, allowlist, &OnDisk)?;
        Ok(Self { confinements: Some(confinements), ..Self::of(&loaded) })
    }

    fn of(loaded: &Loaded) -> Self {
        let script = |entry: &Entry| {
            let pins = Pins { sha256: entry.sha256().copied(), args: entry.args() };
            let script = Script { path: entry.path().to_owned(), profile: entry.profile().to_string(), pins };
            (entry.name().clone(), script)
        };
        let limits = |profile: &Profile| {
            let limits = ProfileLimits { timeout: profile.timeout, kill_grace: profile.kill_grace };
            (profile.name.to_string(), limits)
        };
        Self {
            scripts: loaded.allowlist.iter().map(script).collect(),
            script_dirs: loaded.settings.script_dirs.clone(),
            profiles: loaded.settings.profiles.values().map(limits).collect(),
            max_children: loaded.settings.max_children,
            confinements: None,
        }
    }
}

fn read(config: &Path, allowlist: &Path, root: &Root) -> Result<Loaded, String> {
    let read = |path: &Path| match file::read_bounded(path, LIMIT) {
        Ok(bytes) => Ok(Source::new(path, bytes)),
        Err(error) => Err(causes::on_one_line(&error)),
    };
    agent::load(&read(config)?, &read(allowlist)?, root).map_err(|errors| errors.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{Access, write_atomic};

    const AGENT: &str = "port = 7443\ncert = /c\nkey = /k\nca = /a\nmax_children = 3\nscript_dirs = /opt:/srv\n\
        [profile default]\n[profile slow]\ntimeout = 9\nkill_grace = 2\n";

    fn loaded(agent: &str, scripts: &str) -> Result<Policy, String> {
        let dir = tempfile::tempdir().unwrap();
        let (config, allowlist) = (dir.path().join("agent.conf"), dir.path().join("scripts.conf"));
        write_atomic(&config, agent.as_bytes(), Access::public()).unwrap();
        write_atomic(&allowlist, scripts.as_bytes(), Access::public()).unwrap();
        Policy::load(&config, &allowlist, &Root::new(None))
    }

    #[test]
    fn both_files_become_one_policy() {
        let policy = loaded(AGENT, "a = /opt/a\nb = /opt/b profile=slow\n").unwrap();
        let slow = &policy.scripts[&ScriptName::parse("b").unwrap()];
        assert_eq!((slow.path.as_path(), slow.profile.as_str()), (Path::new("/opt/b"), "slow"));
        assert_eq!(policy.scripts[&ScriptName::parse("a").unwrap()].profile, "default");
        let limits = ProfileLimits { timeout: Some(Duration::from_secs(9)), kill_grace: Duration::from_secs(2) };
        assert_eq!(policy.profiles["slow"], limits);
        assert_eq!(policy.profiles["default"].timeout, None);
        assert_eq!((policy.max_children, policy.script_dirs.unwrap().len()), (3, 2));
    }

    #[test]
    fn a_fault_in_either_is_told_with_its_place() {
        let text = loaded(AGENT, "a = relative\n").unwrap_err();
        assert!(text.contains("scripts.conf:1:"), "{text}");
        let text = loaded("nonsense\n", "a = /opt/a\n").unwrap_err();
        assert!(text.contains("agent.conf:1:"), "{text}");
        let none = Path::new("/nonexistent/agent.conf");
        let text = Policy::load(none, none, &Root::new(None)).unwrap_err();
        assert!(text.starts_with("cannot open /nonexistent/agent.conf: No such file"), "{text}");
    }
}
