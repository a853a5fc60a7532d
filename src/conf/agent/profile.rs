//! One `[profile NAME]` section: in what confinement a script runs.

use std::path::PathBuf;
use std::time::Duration;

use crate::conf::caps::{Capability, capability};
use crate::conf::diagnostic::{Diagnostic, Findings};
use crate::conf::lexer::{Section, Span};
use crate::conf::names::{Account, ProfileName, account};
use crate::conf::reader::{Empty, Placed, Reader};
use crate::conf::value;

/// The longest time limit, in seconds: a year.
const MAX_TIMEOUT: u32 = 365 * 24 * 60 * 60;

/// The keys of a profile, for a message about one that stands elsewhere.
pub(super) const KEYS: [&str; 6] = ["run_as", "caps", "writable", "no_new_privileges", "timeout", "kill_grace"];

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
        let mut caps = r.list("caps", &[',', ' ', '\t'], capability).map(Placed::into_inner).unwrap_or_default();
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
            no_new_privileges: *r.get_or("no_new_privileges", value::switch, true),
            timeout: r
                .get("timeout", value::seconds(0..=MAX_TIMEOUT))
                .map(Placed::into_inner)
                .filter(|timeout| !timeout.is_zero()),
            kill_grace: *r.get_or("kill_grace", value::seconds(0..=3600), Duration::from_secs(5)),
            name,
            place,
        };
        r.finish(|key| {
            top.contains(&key).then(|| format!("'{key}' is a setting of the agent: it belongs above the first section"))
        });
        profile
    }

    /// The error about a profile that names no account.
    pub(super) fn missing_account(&self) -> Option<Diagnostic> {
        if self.run_as.is_some() {
            return None;
        }
        let message = format!("Profile '{}': no run_as: its scripts would run as root", self.name);
        let help = "add the line 'run_as = nobody' (or the account that is right; 'run_as = root' if it must be root)";
        Some(self.place.instead(message).help(help))
    }
}
