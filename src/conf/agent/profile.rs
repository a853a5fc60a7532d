//! One `[profile NAME]` section: in what confinement a script runs.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::conf::caps::{Capability, capability};
use crate::conf::diagnostic::{Diagnostic, Findings, shown};
use crate::conf::environment;
use crate::conf::lexer::{Section, Span};
use crate::conf::names::{Account, ProfileName, account};
use crate::conf::reader::{Empty, Lines, Placed, Reader};
use crate::conf::value::{self, Complaint};

/// The longest time limit, in seconds: a year.
const MAX_TIMEOUT: u32 = 365 * 24 * 60 * 60;

/// The keys of a profile, for a message about one that stands elsewhere.
pub(super) const KEYS: [&str; 17] = [
    "run_as",
    "caps",
    "allow_dangerous_caps",
    "writable",
    "readable",
    "no_new_privileges",
    "timeout",
    "kill_grace",
    "memory_max",
    "processes_max",
    "cpu_max",
    "files_max",
    "network",
    "syscalls",
    "umask",
    "environment",
    "working_directory",
];

/// The keys that any executor applies: its own means are enough.
const APPLIED_BY_ANY: [&str; 2] = ["timeout", "kill_grace"];

/// What `memory_max` can be, in bytes: below 4 MiB hardly a shell starts, and no host has 1 PiB.
const MEMORY: RangeInclusive<u64> = 4 << 20..=1 << 50;
/// What `processes_max` can be; the most is the kernel's `PID_MAX_LIMIT`, `proc_sys_kernel(5)`.
const PROCESSES: RangeInclusive<u64> = 1..=4_194_304;
/// What `cpu_max` can be, in percent of one CPU.
const CPU: RangeInclusive<u32> = 1..=100_000;
/// What `files_max` can be: a shell needs a handful; the most is the kernel's `fs.nr_open`, `proc_sys_fs(5)`.
const FILES: RangeInclusive<u64> = 16..=1_048_576;

/// What a profile costs that lifts the filter and may undo itself.
const UNFILTERED: &str = "undoes the confinement, also without a capability: it can make namespaces and mounts of its own \
    and take descriptors from other processes of its account; as root it can move what lies above the agent's own places";

/// Which system calls a script may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Syscalls {
    /// All but those that undo a confinement or attack the kernel.
    #[default]
    Default,
    /// All.
    Off,
}

/// The confinement that `agent.conf` orders for some scripts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The section's name.
    pub name: ProfileName,
    /// `run_as`: the account. Only an agent without a root executor can do without:
    /// [`Settings::profile_errors`](super::Settings::profile_errors).
    pub run_as: Option<Placed<Account>>,
    /// `caps`: the capabilities it keeps, in the order written, none twice (none).
    pub caps: Vec<Capability>,
    /// `writable`: the directories it may write to. None: the file system is not made read-only.
    pub writable: Option<Vec<PathBuf>>,
    /// `no_new_privileges`: set-uid programs give it nothing (yes).
    pub no_new_privileges: bool,
    /// `timeout`: the script is stopped after this time (up to a year). None, or 0 in the file: never.
    pub timeout: Option<Duration>,
    /// `kill_grace`: the time between the request to stop and the kill (5 s; 0 to 3600).
    pub kill_grace: Duration,
    /// `memory_max`: bytes that the script and its descendants may use together (4 MiB to 1 PiB). None: no limit.
    pub memory_max: Option<u64>,
    /// `processes_max`: processes and threads it may have at the same time (1 to 4194304). None: no limit.
    pub processes_max: Option<u64>,
    /// `cpu_max`: CPU time it may use, in percent of one CPU (1 to 100000). None: no limit.
    pub cpu_max: Option<u32>,
    /// `files_max`: files that each of its processes may have open (16 to 1048576). None: the executor's own limit.
    pub files_max: Option<u64>,
    /// `network`: whether it sees the host's network (yes).
    pub network: bool,
    /// `readable`: the only trees in which it may read or execute. None: every file that its account may.
    pub readable: Option<Vec<PathBuf>>,
    /// `syscalls`: which system calls it may make.
    pub syscalls: Syscalls,
    /// `umask`: permissions that files it makes do not get (0o022; 0 to 0o777).
    pub umask: u32,
    /// `environment`: variables that it finds set, in the order written, no name twice (none). They replace those that
    /// the executor sets or passes on.
    pub environment: Vec<(String, String)>,
    /// `working_directory`: where it starts (`/`).
    pub working_directory: PathBuf,
    /// `allow_dangerous_caps`: `caps` may name what undoes the rest of the profile (no).
    pub allow_dangerous_caps: bool,
    /// Where its keys stand.
    pub lines: Lines,
    /// Where each of `writable` stands.
    writable_places: Vec<Diagnostic>,
    /// Where the section's header stands.
    place: Diagnostic,
}

impl Profile {
    /// The line of the section's header, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.place.line().unwrap_or_default()
    }

    /// Reads the section below `header`. Returns the profile.
    pub(super) fn read(
        name: ProfileName,
        header: &Span<'_>,
        section: &Section<'_>,
        top: &[&'static str],
        findings: &mut Findings,
    ) -> Self {
        let place = header.error("");
        let path = place.path().into();
        let mut r = Reader::new(&path, format!("Profile '{name}': "), &section.settings, Empty::Refused, findings);
        let dangerous = *r.get_or("allow_dangerous_caps", value::switch, false);
        let network = *r.get_or("network", value::switch, true);
        let caps = r.list("caps", &[',', ' ', '\t'], capability(dangerous, network));
        let mut caps = caps.map(Placed::into_inner).unwrap_or_default();
        let mut seen = Vec::new();
        caps.retain(|cap| {
            let new = !seen.contains(cap);
            seen.push(*cap);
            new
        });
        let profile = Self {
            run_as: r.get("run_as", account("run_as")),
            caps,
            writable: r.list("writable", &[':'], value::writable).map(Placed::into_inner),
            no_new_privileges: r.lenient("no_new_privileges", value::switch, true, |_| (true, "it counts as 'yes'")),
            timeout: r
                .get("timeout", value::seconds(0..=MAX_TIMEOUT))
                .map(Placed::into_inner)
                .filter(|timeout| !timeout.is_zero()),
            kill_grace: *r.get_or("kill_grace", value::seconds(0..=3600), Duration::from_secs(5)),
            memory_max: r.get("memory_max", value::bytes(MEMORY)).map(Placed::into_inner),
            processes_max: r.get("processes_max", value::number(PROCESSES)).map(Placed::into_inner),
            cpu_max: r.get("cpu_max", value::percent(CPU)).map(Placed::into_inner),
            files_max: r.get("files_max", value::number(FILES)).map(Placed::into_inner),
            network,
            readable: r.list("readable", &[':'], value::absolute).map(Placed::into_inner),
            syscalls: *r.get_or("syscalls", syscalls, Syscalls::Default),
            umask: *r.get_or("umask", value::umask, 0o022),
            environment: r.cut("environment", environment::pairs),
            working_directory: r.get_or("working_directory", value::absolute, PathBuf::from("/")).into_inner(),
            allow_dangerous_caps: dangerous,
            lines: r.lines(),
            writable_places: r.places("writable", &[':']),
            name,
            place,
        };
        r.finish(|key| {
            top.contains(&key).then(|| format!("'{key}' is a setting of the agent: it belongs above the first section"))
        });
        profile
    }

    /// What of it lets its scripts undo the confinement, each with its cost. It says so itself: `allow_dangerous_caps`.
    #[must_use]
    pub fn undoing(&self) -> Vec<String> {
        let caps = self.caps.iter().filter_map(|cap| Some(format!("{cap} undoes the confinement: {}", cap.cost()?)));
        let unfiltered = self.syscalls == Syscalls::Off && self.allow_dangerous_caps;
        let calls = unfiltered.then(|| format!("'syscalls = off' beside 'allow_dangerous_caps = yes' {UNFILTERED}"));
        caps.chain(calls).collect()
    }

    /// What of it undoes its `network = no`, with the cost.
    #[must_use]
    pub fn undoing_network(&self) -> Option<String> {
        let cost = self.caps.iter().filter(|_| !self.network).find_map(|cap| Some((cap, cap.network_cost()?)));
        cost.map(|(cap, cost)| format!("{cap} undoes 'network = no': {cost}"))
    }

    /// The keys that are set and that only a root executor applies, in the order of the manual.
    #[must_use]
    pub fn only_as_root(&self) -> Vec<&'static str> {
        let set = |key: &&str| self.lines.of(key).is_some() && !APPLIED_BY_ANY.contains(key);
        KEYS.into_iter().filter(set).collect()
    }

    /// The paths of `writable`, each with its place.
    pub(super) fn writable_places(&self) -> impl Iterator<Item = (&Path, &Diagnostic)> {
        self.writable.iter().flatten().map(PathBuf::as_path).zip(&self.writable_places)
    }

    /// The error about a profile that names no account; `agent` is the one that it may not name.
    pub(super) fn missing_account(&self, agent: &Account) -> Option<Diagnostic> {
        if self.run_as.is_some() {
            return None;
        }
        let message = format!("Profile '{}': no run_as: its scripts would run as root", self.name);
        let example = agent.another();
        let help = format!(
            "add the line 'run_as = {example}' (or the account that is right; 'run_as = root' if it must be root)"
        );
        Some(self.place.instead(message).help(help))
    }
}

fn syscalls(text: &str) -> Result<Syscalls, Complaint> {
    match text {
        "default" => Ok(Syscalls::Default),
        "off" => Ok(Syscalls::Off),
        _ => Err(Complaint::of_key(format!("must be 'default' or 'off', not '{}'", shown(text)))
            .help("'off' lets the script make nearly every system call")),
    }
}
