//! `agent.conf`: the agent's settings, tags and profiles. Its executor reads the same file for itself.

mod control;
mod load;
mod profile;
mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use load::{Loaded, load};
pub use profile::{Profile, Syscalls};

/// The keys of a profile, for tests that have something for each.
#[cfg(test)]
pub(crate) fn profile_keys() -> &'static [&'static str] {
    &profile::KEYS
}

use crate::conf::diagnostic::{ConfErrors, Findings, Warnings};
use crate::conf::endpoint::Endpoint;
use crate::conf::names::{Account, ProfileName};
use crate::conf::networks::AllowedIps;
use crate::conf::reader::{Lines, Placed};
use crate::conf::root::Root;
use crate::conf::source::Source;
use crate::conf::value::RateLimit;

/// Everything `agent.conf` says, with the defaults for what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file this came from.
    pub file: PathBuf,
    /// `port`: where to listen; 0 lets the kernel choose. Required.
    pub port: Placed<u16>,
    /// `bind`: the addresses to listen on (every IPv4 and IPv6 one).
    pub bind: Placed<Vec<IpAddr>>,
    /// `cert`: the agent's certificate. Required.
    pub cert: Placed<PathBuf>,
    /// `key`: its private key. Required.
    pub key: Placed<PathBuf>,
    /// `ca`: the CA's certificate. Required.
    pub ca: Placed<PathBuf>,
    /// `pairing_port`: where `request-pairing` finds the dispatcher (7444).
    pub pairing_port: u16,
    /// `user`: the account that an agent started as root drops to (`ctrl-exec-agent`).
    pub user: Placed<Account>,
    /// `script_dirs`: scripts run only from below these. None: from anywhere.
    pub script_dirs: Option<Vec<PathBuf>>,
    /// `trusted_paths`: a root executor runs only what nobody but root can have written (yes).
    pub trusted_paths: Placed<bool>,
    /// `executor_socket`: where the root executor listens. None: the agent runs scripts with what rights it has.
    pub executor_socket: Option<Placed<PathBuf>>,
    /// `trusted_dispatchers_path`: serials and the dispatchers they belong to.
    pub trusted_dispatchers_path: Placed<PathBuf>,
    /// `revoked_serials`: serials that are refused.
    pub revoked_serials: Placed<PathBuf>,
    /// `cert_staging_path`: a renewed certificate waits here for the next start.
    pub cert_staging_path: Placed<PathBuf>,
    /// `async_runs_dir`: results of asynchronous runs.
    pub async_runs_dir: Placed<PathBuf>,
    /// `stdin_timeout`: how long a script may take to read its context (10 s; 1 to 3600).
    pub stdin_timeout: Duration,
    /// `stall_timeout`: how long the caller of a streamed run may take nothing of its output before the run is ended
    /// (900 s; 1 to 86400).
    pub stall_timeout: Duration,
    /// `max_children`: requests handled at the same time (256; 1 to 65535).
    pub max_children: usize,
    /// `max_output`: bytes of each output stream that a buffered reply keeps (16 MiB; 1 KiB to 1 GiB).
    pub max_output: u64,
    /// `async_max_bytes`: bytes that finished detached jobs may have printed together, who has more than an equal share loses
    /// the oldest; and that one that runs may print (1 GiB; 1 MiB to 1 PiB).
    pub async_max_bytes: u64,
    /// `schema`: what an argument contract beside a script is for.
    pub schema: Schema,
    /// `auth_hook`: the executable that judges requests. None: no hook.
    pub auth_hook: Option<Placed<PathBuf>>,
    /// `auth_hook_timeout`: a hook that takes longer denies (10 s; 1 to 3600).
    pub auth_hook_timeout: Duration,
    /// `allowed_ips`: the peers that may connect. None: all.
    pub allowed_ips: Option<AllowedIps>,
    /// `rate_limit_volume`, unless `rate_limit_disable` is on (10 in 60 s, then 300 s).
    pub rate_limit_volume: Option<RateLimit>,
    /// `rate_limit_probe`, unless `rate_limit_disable` is on (3 in 600 s, then 3600 s).
    pub rate_limit_probe: Option<RateLimit>,
    /// `metrics`: where the agent says what it counts, to this host alone. None: nowhere.
    pub metrics: Option<Placed<Endpoint>>,
    /// `[tags]`: what the operator wants the host to be known by.
    pub tags: BTreeMap<String, String>,
    /// `[profile NAME]` sections.
    pub profiles: BTreeMap<ProfileName, Profile>,
    /// Where the keys above the first section stand.
    pub lines: Lines,
}

/// What the agent does with the argument contracts of `<script>.schema.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schema {
    /// Refuses arguments that a script's contract does not allow.
    #[default]
    Enforce,
    /// Shows the contracts, and leaves arguments to callers and scripts.
    Advertise,
}

/// Where a pairing waits while its files are put in place, beside the private key. What is there when the agent starts is put in
/// place then: whoever can make it decides whom the agent trusts.
#[must_use]
pub fn pairing_journal(key: &Path) -> PathBuf {
    let mut name = key.file_name().unwrap_or_default().to_owned();
    name.push(".pairing");
    key.with_file_name(name)
}

impl Settings {
    /// The file's default place.
    pub const DEFAULT_PATH: &'static str = "/etc/ctrl-exec-agent/agent.conf";
    /// The default place of the allowlist that belongs to it.
    pub const DEFAULT_SCRIPTS_PATH: &'static str = "/etc/ctrl-exec-agent/scripts.conf";

    /// Reads the file alone; defaults of paths lie below `root`.
    ///
    /// # Errors
    /// All of them.
    pub fn parse(source: &Source, root: &Root) -> Result<(Self, Warnings), ConfErrors> {
        let mut findings = Findings::default();
        let settings = read::settings(source, root, &mut findings);
        findings.sorted().judge(settings)
    }

    /// Where `key` is set: `path:line`, or `path (default)`.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        place(&self.file, self.lines.of(key))
    }

    /// Where `key` of a profile is set: `path:line`, or its header's place, since its default holds there.
    #[must_use]
    pub fn place_in(&self, profile: &Profile, key: &str) -> String {
        place(&self.file, profile.lines.of(key).or_else(|| Some(profile.line())))
    }

    /// Where a root executor applies, every profile must say which account it runs as: one that does not would run
    /// as uid 0, which owns the system's files even without a capability.
    ///
    /// # Errors
    /// One for each profile without `run_as`, with the line to add.
    pub fn profile_errors(&self) -> Result<(), ConfErrors> {
        let mut findings = Findings::default();
        let errors = self.profiles.values().filter_map(|profile| profile.missing_account(&self.user));
        errors.for_each(|error| findings.push(error));
        findings.sorted().judge(()).map(|((), _)| ())
    }

    /// Where a root executor applies, no profile may let its scripts write where the agent's own files are: who can
    /// replace its configuration, keys, trust or results needs no permission any more. A writable path is refused if it
    /// is, holds or lies in a directory of those files, as written and as links resolve.
    ///
    /// `scripts` is the allowlist's file; `resolve` says what a path means now, or would mean if it were made, and where else that
    /// shows; or nothing where not even its directories are there. What links and mounts mean can change, so the executor asks
    /// again before each run.
    ///
    /// # Errors
    /// One for each writable path, which names the setting it touches.
    pub fn writable_errors(&self, scripts: &Path, resolve: impl Fn(&Path) -> Vec<PathBuf>) -> Result<(), ConfErrors> {
        let mut findings = Findings::default();
        control::errors(self, scripts, &resolve).for_each(|error| findings.push(error));
        findings.sorted().judge(()).map(|((), _)| ())
    }
}

fn place(file: &Path, line: Option<usize>) -> String {
    match line {
        Some(line) => format!("{}:{line}", file.display()),
        None => format!("{} (default)", file.display()),
    }
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
