//! What may run on this host: the part of the configuration that the executor decides by, as one snapshot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::confinements::{Confinements, meanings};
use super::host::{HostFacts as _, OnDisk};
use super::pins::Pins;
use crate::conf::agent::{self, Loaded, Profile, Settings};
use crate::conf::scripts::{Allowlist, Entry};
use crate::conf::{Account as Configured, Root, Source};
use crate::sys::file::{self, TrustError};
use crate::sys::user::{self, Account, Uid};
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
    /// Bytes that a detached job may print, both outputs together.
    pub output_max: u64,
    /// Which paths a script may have.
    pub paths: Paths,
    /// What a root executor applies; nothing under a private one.
    pub confinements: Option<Confinements>,
}

/// Which paths may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// Those that root alone can have put there: the file and every directory above it are root's, and nobody else's to
    /// write.
    Trusted,
    /// Any, although the executor has root's rights (`trusted_paths = no`).
    AnyAsRoot,
    /// Any: the executor has no rights to give away.
    Any {
        /// Its account, whose rights scripts have.
        own: Uid,
    },
}

/// Who may write to a script's file and to the directories above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keepers {
    /// Anybody.
    Anybody,
    /// Root alone.
    Root,
    /// Root and this account.
    RootAnd(Uid),
}

/// What an executor may do, which decides how its configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights<'a> {
    /// No more than its front-end.
    FrontEnd,
    /// Everything. The configuration must be root's alone, and every profile names an account: not root by silence,
    /// and none of the front-end's.
    Root {
        /// The account that gives orders, where it is not the one that `agent.conf` names.
        front_end: Option<&'a Account>,
        /// The executor's socket, which no script may reach.
        socket: Option<&'a Path>,
    },
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

impl Script {
    fn of(entry: &Entry) -> Self {
        let pins = Pins { sha256: entry.sha256().copied(), args: entry.args() };
        Self { path: entry.path().to_owned(), profile: entry.profile().to_string(), pins }
    }

    /// Who may write to it where such `paths` are permitted. What is pinned to its content is read once when it is judged, and
    /// again when it is executed, a script with `#!` by its interpreter and under its name: whoever could exchange it in
    /// between would choose what runs.
    pub(super) const fn keepers(&self, paths: Paths) -> Keepers {
        match (paths, self.pins.sha256) {
            (Paths::Trusted, _) | (Paths::AnyAsRoot, Some(_)) => Keepers::Root,
            (Paths::Any { own }, Some(_)) => Keepers::RootAnd(own),
            (Paths::AnyAsRoot | Paths::Any { .. }, None) => Keepers::Anybody,
        }
    }
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
    pub fn load(config: &Path, allowlist: &Path, root: &Root, rights: Rights<'_>) -> Result<Self, String> {
        let read = |path: &Path| match rights {
            Rights::FrontEnd => file::read_bounded(path, LIMIT).map_err(|error| causes::on_one_line(&error)),
            Rights::Root { .. } => trusted(path),
        };
        let source = |path: &Path| read(path).map(|bytes| Source::new(path, bytes));
        let loaded = agent::load(&source(config)?, &source(allowlist)?, root).map_err(|errors| errors.to_string())?;
        Self::judged(&loaded, allowlist, rights)
    }

    /// The same of files that were read, whoever may have written them; `allowlist` is the second one's place.
    ///
    /// # Errors
    /// As [`Policy::load`], but for what is wrong with the files as such.
    pub fn judged(loaded: &Loaded, allowlist: &Path, rights: Rights<'_>) -> Result<Self, String> {
        let policy = Self::of(&loaded.settings, &loaded.allowlist);
        let Rights::Root { front_end, socket } = rights else {
            return Ok(Self { paths: Paths::Any { own: own(&loaded.settings) }, ..policy });
        };
        let confinements = Confinements::new(loaded, allowlist, &OnDisk)?.and_hidden(socket);
        judge(&loaded.settings, &loaded.allowlist, front_end)?;
        Ok(Self { confinements: Some(confinements), ..policy })
    }

    /// Whether scripts are executed with root's help although others may have written them.
    #[must_use]
    pub fn lifts_trust(&self) -> bool {
        self.paths == Paths::AnyAsRoot
    }

    /// The same for calls with any number of arguments: for asking about a script without a call.
    #[must_use]
    pub fn whatever_the_arguments(mut self) -> Self {
        self.scripts.values_mut().for_each(|script| script.pins.args = None);
        self
    }

    /// What replaces `earlier` in a running executor.
    pub(super) fn after(&mut self, earlier: &Self) {
        if let (Some(own), Some(before)) = (&mut self.confinements, &earlier.confinements) {
            own.and_kept(before);
        }
    }

    /// What a root executor makes of both files.
    pub(super) fn of(settings: &Settings, allowlist: &Allowlist) -> Self {
        let script = |entry: &Entry| (entry.name().clone(), Script::of(entry));
        let limits = |profile: &Profile| {
            let limits = ProfileLimits { timeout: profile.timeout, kill_grace: profile.kill_grace };
            (profile.name.to_string(), limits)
        };
        Self {
            scripts: allowlist.iter().map(script).collect(),
            script_dirs: settings.script_dirs.clone(),
            profiles: settings.profiles.values().map(limits).collect(),
            max_children: settings.max_children,
            output_max: settings.async_max_bytes,
            paths: if *settings.trusted_paths { Paths::Trusted } else { Paths::AnyAsRoot },
            confinements: None,
        }
    }
}

/// Why a script's file is not one that the executor trusts, if it has to: a root executor, or a private one.
#[must_use]
pub fn doubt(entry: &Entry, settings: &Settings, root: bool) -> Option<TrustError> {
    let paths = match (root, *settings.trusted_paths) {
        (true, true) => Paths::Trusted,
        (true, false) => Paths::AnyAsRoot,
        (false, _) => Paths::Any { own: own(settings) },
    };
    let besides = match Script::of(entry).keepers(paths) {
        Keepers::Anybody => return None,
        Keepers::Root => None,
        Keepers::RootAnd(own) => Some(own),
    };
    OnDisk.resolve_trusted(entry.path(), besides).err()
}

/// The account of a private executor: that of this process, or the one that it gives root up for.
fn own(settings: &Settings) -> Uid {
    let uid = user::current().0;
    let account = if uid.is_root() { OnDisk.person(&settings.user).ok().flatten() } else { None };
    account.map_or(uid, |person| person.uid)
}

/// Reads a file that nobody but root can have written.
fn trusted(path: &Path) -> Result<Vec<u8>, String> {
    let opened = file::open_trusted(path).map_err(|error| causes::on_one_line(&error))?;
    file::read_open(&opened, path, LIMIT).map_err(|error| causes::on_one_line(&error))
}

/// No profile may write where the agent's files are, and none names a front-end's account: a script of that account
/// could give orders itself, past trust map, hook and log.
pub(super) fn judge(settings: &Settings, allowlist: &Allowlist, front_end: Option<&Account>) -> Result<(), String> {
    settings.writable_errors(allowlist.file(), |path| meanings(path, &OnDisk)).map_err(|errors| errors.to_string())?;
    let taken = [uid(&settings.user)?, front_end.map(|account| account.uid().as_raw())];
    let mut faults = Vec::new();
    for (name, profile) in &settings.profiles {
        let Some(run_as) = &profile.run_as else { continue };
        let own = uid(run_as)?;
        if own.is_some() && taken.contains(&own) {
            let is_free =
                |name: &&str| uid(&Configured::Name((*name).to_owned())).is_ok_and(|uid| !taken.contains(&uid));
            let example = ["nobody", "daemon", "bin"].into_iter().find(is_free).unwrap_or("scripts");
            let place = run_as.place(&settings.file);
            faults.push(format!(
                "{place}: Profile '{name}': run_as '{}' is the agent's own account: a script could give orders past the \
                 agent's checks\nhelp: name another account, for example 'run_as = {example}', or one made for it",
                **run_as
            ));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// The number of an account; nothing if no account has the name.
fn uid(account: &Configured) -> Result<Option<u32>, String> {
    match account {
        Configured::Id(id) => Ok(Some(*id)),
        Configured::Name(name) => match Account::by_name(name) {
            Ok(found) => Ok(found.map(|found| found.uid().as_raw())),
            Err(error) => Err(format!("the accounts of this host cannot be read: {error}")),
        },
    }
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
        Policy::load(&config, &allowlist, &Root::new(None), Rights::FrontEnd)
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
        let text = loaded(AGENT, "a = /opt/a # why\n").unwrap_err();
        assert!(text.contains("scripts.conf:1:"), "{text}");
        let text = loaded("nonsense\n", "a = /opt/a\n").unwrap_err();
        assert!(text.contains("agent.conf:1:"), "{text}");
        let none = Path::new("/nonexistent/agent.conf");
        let text = Policy::load(none, none, &Root::new(None), Rights::FrontEnd).unwrap_err();
        assert!(text.starts_with("cannot open /nonexistent/agent.conf: No such file"), "{text}");
    }
}
