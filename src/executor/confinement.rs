//! What a root executor applies to a run: a profile's keys with everything looked up that they leave open.

use std::path::PathBuf;

use super::host::Person;
use super::own::Found;
use crate::conf::agent::{Profile, Syscalls};
use crate::conf::caps::Capability;
use crate::sys::capability;
use crate::sys::seccomp::{List, SetIds, Wanted};

/// `CAP_FSETID`, with which a file of another's group can be given the bit of set-group-ID.
const KEEPS_SET_IDS: u8 = 4;
/// `CAP_SYS_ADMIN`, with which one can mount (capabilities(7)).
const MAY_MOUNT: u8 = 21;

/// The confinement of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    pub(super) profile: Profile,
    pub(super) person: Person,
    pub(super) found: Found,
}

impl Confinement {
    /// The profile, whose keys say the rest.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whom the script runs as.
    #[must_use]
    pub const fn person(&self) -> &Person {
        &self.person
    }

    /// Whether it may read or change files that are not its account's, whatever their modes say, or become somebody who may.
    pub(super) fn passes_modes(&self) -> bool {
        reaches_others(&self.profile, &self.person)
    }

    /// Files and directories that it cannot reach, whatever its rights.
    #[must_use]
    pub fn hidden(&self) -> &[PathBuf] {
        &self.found.hidden
    }

    /// Files that it may see and never change, whatever its rights.
    pub(super) fn kept(&self) -> &[PathBuf] {
        &self.found.kept
    }

    /// Links and directories that it cannot replace, besides those above what is hidden and kept.
    pub(super) fn passed(&self) -> &[PathBuf] {
        &self.found.passed
    }

    /// Which system calls it may not make. `syscalls = off` lifts the list, but for what leaves the bounds of the run unless the
    /// profile may undo itself: an account that has root's files needs no capability for that. What would outlast the run or
    /// reach past its network stays refused, since no other part of a profile could: the first unless the profile may undo itself,
    /// and unless it has root's files to write to and so no need of such a program (package managers do make them there).
    pub(super) fn calls(&self) -> Wanted {
        let profile = &self.profile;
        let root = self.person.uid.is_root();
        let list = match profile.syscalls {
            Syscalls::Default => List::Whole,
            Syscalls::Off if profile.allow_dangerous_caps => List::Nothing,
            Syscalls::Off => List::Bounds,
        };
        let anothers = |cap: &Capability| cap.is_wide() || cap.is_dangerous() || cap.number() == KEEPS_SET_IDS;
        let set_ids = if list == List::Nothing || root && self.writable().is_none() {
            SetIds::Free
        } else if root || !profile.no_new_privileges || profile.caps.iter().any(anothers) {
            SetIds::Neither
        } else {
            // The groups of an ordinary account's files are its own, and directories that it shares need the other bit.
            SetIds::NoUser
        };
        Wanted { list, no_network: !profile.network, set_ids }
    }

    /// Whether its rights reach beyond what it is confined to: without `writable`, it may change files of root's, or become
    /// somebody who may, and so gains the host in the end.
    #[must_use]
    pub fn owns_the_host(&self) -> bool {
        self.writable().is_none() && (self.person.uid.is_root() || self.profile.caps.iter().any(|cap| cap.is_wide()))
    }

    /// The only trees that it may write to; nothing if its account's rights decide.
    #[must_use]
    pub fn writable(&self) -> Option<&[PathBuf]> {
        self.profile.writable.as_deref()
    }

    /// Whether it may mount and unmount where it is.
    pub(super) fn may_mount(&self) -> bool {
        self.caps().has(MAY_MOUNT)
    }

    /// The capabilities that it has.
    #[must_use]
    pub fn caps(&self) -> capability::Set {
        self.profile.caps.iter().fold(capability::Set::default(), |set, cap| set.with(cap.number()))
    }

    /// What is set in its environment on top of the search path: who it is, then the profile's own words.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let login = self.person.login.as_ref();
        let home = login.and_then(|(_, home)| home.to_str()).unwrap_or("/");
        let name = login.map(|(name, _)| name.as_str());
        let who = name.into_iter().flat_map(|name| [("USER", name), ("LOGNAME", name)]);
        let own = self.profile.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        [("HOME", home)].into_iter().chain(who).chain(own)
    }
}

/// Whether a script may read or change files that are not its account's, or become somebody who may, also by a set-user-ID program
/// of the host's. Of any other the modes of the agent's files keep it away, by whatever name.
pub(super) fn reaches_others(profile: &Profile, person: &Person) -> bool {
    person.uid.is_root()
        || !profile.no_new_privileges
        || profile.caps.iter().any(|cap| cap.is_wide() || cap.is_dangerous())
}
