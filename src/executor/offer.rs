//! What this host offers to a confined run, and what of a profile it therefore cannot apply. A run asks the same
//! functions, each at its step.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::confinements::Confinements;
use super::ground;
use super::host::HostFacts;
use super::limits::{self, Means, Unenforceable};
use super::needs;
use super::policy::Policy;
use crate::sys::capability::{self, Set};
use crate::sys::cgroup::{Controllers, Delegation};
use crate::sys::descriptors;
use crate::sys::kernel::{self, Kernel};
use crate::sys::{locks, user};

/// What there is, asked once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The kernel's own part.
    pub kernel: Kernel,
    /// Controllers of control groups, version 2.
    pub controllers: Controllers,
    /// Capabilities that can be given.
    pub caps: Set,
    /// The most open files that can be made a limit.
    pub files: u64,
    /// Whether controllers, files and capabilities are those of an executor that runs. Else they are what the host has, and what
    /// this process has: an executor that was started as it should be has as much.
    pub running: bool,
}

impl Offer {
    /// Looks. `executor` is the process of an executor that runs.
    #[must_use]
    pub fn look(executor: Option<i32>) -> Self {
        let kernel = kernel::probe();
        let of = |process| {
            let controllers = Delegation::of(process).and_then(|group| group.controllers()).unwrap_or_default();
            let files = descriptors::most_of(process).unwrap_or(u64::MAX);
            capability::available_to(process).map(|caps| Self { kernel, controllers, caps, files, running: true })
        };
        executor.and_then(|process| of(process).ok()).unwrap_or_else(|| {
            let controllers = Delegation::find().and_then(|group| group.offered()).unwrap_or_default();
            // Somebody else than root has none, which says nothing of an executor.
            let caps = if user::is_root() { capability::available().unwrap_or_default() } else { Set::ALL };
            let files = descriptors::most().unwrap_or(u64::MAX);
            Self { kernel, controllers, caps, files, running: false }
        })
    }
}

/// What is missing where there are no user namespaces.
pub(super) const USER_NAMESPACES: &str = "mounts are locked to their places with a user namespace, in which no script ever is: \
    the kernel must have them, and sysctl user.max_user_namespaces must allow some, such as 1000";

/// What is the matter where one is not permitted to who has the capabilities for it (`needs`).
pub(super) const NO_USER_NAMESPACE: &str = "mounts are locked to their places with a user namespace, and a filter of system \
    calls or a security module of this host keeps the executor from making one";

/// The version of Landlock to use for a run; none if the kernel has none and the profile can do without.
pub(super) fn landlock(confinement: &Confinement, version: Option<u32>) -> Result<Option<u32>, Unenforceable> {
    if version.is_none() && confinement.profile().readable.is_some() {
        let why =
            "this kernel has no Landlock (5.13 or later, with 'landlock' among its lsm=), which alone enforces it";
        return Err(Unenforceable { key: "readable", why: why.to_owned() });
    }
    Ok(version)
}

/// Whether the profile's capabilities can be given.
///
/// **Invariant:** as [`start`](super::start), the caller has one thread.
pub(super) fn caps(confinement: &Confinement, available: Set) -> Result<(), Unenforceable> {
    let missing = confinement.caps().without(available);
    if missing.is_empty() {
        return root_is_whole(confinement);
    }
    let listed = confinement.profile().caps.iter().filter(|cap| missing.has(cap.number()));
    let names: Vec<&str> = listed.map(|cap| cap.name()).collect();
    let why = "the executor does not have it itself (a container or its service withholds it)";
    Err(Unenforceable { key: "caps", why: format!("{} cannot be given: {why}", names.join(", ")) })
}

/// Why an executor that has no more than this would refuse every run, whatever its profile.
#[must_use]
pub fn incapable(offer: &Offer) -> Option<String> {
    needs::met(offer.caps).err().map(|lacking| lacking.why)
}

/// `CAP_SYS_CHROOT`, with which a script stays in what it sees of the tree of mounts, unless there is more above that.
const CHANGES_ROOT: u8 = 18;

/// Whether a script that may change its root directory would not leave the executor's own by it, where nothing is hidden.
fn root_is_whole(confinement: &Confinement) -> Result<(), Unenforceable> {
    if !confinement.caps().has(CHANGES_ROOT) || confinement.profile().allow_dangerous_caps {
        return Ok(());
    }
    let why = match locks::is_in_a_part_of_the_tree() {
        Ok(false) => return Ok(()),
        // The executor finds out.
        Err(_) if !user::is_root() => return Ok(()),
        Ok(true) => "the executor itself was started in a chroot".to_owned(),
        Err(error) => format!("whether the executor itself was started in a chroot cannot be found out ({error})"),
    };
    let cost = "with CAP_SYS_CHROOT a script leaves that, and the confinement with it, chroot(2)";
    let help = "take it out; or, if the script must have it, add the line 'allow_dangerous_caps = yes'";
    Err(Unenforceable { key: "caps", why: format!("{why}, and {cost}; {help}") })
}

/// The first step of a confined run that this host does not allow, in the order of the steps.
pub(super) fn applicable(confinement: &Confinement, offer: &Offer) -> Result<Means, Unenforceable> {
    caps(confinement, offer.caps)?;
    needs::met_for(confinement, offer.caps)?;
    let means = limits::means(confinement, || offer.files, || offer.controllers)?;
    if !offer.kernel.mount_setattr {
        let why = "this kernel has no mount_setattr (5.12 or later), or a filter of system calls keeps it away";
        return Err(Unenforceable { key: "namespaces", why: why.to_owned() });
    }
    if !offer.kernel.user_namespaces {
        return Err(Unenforceable { key: "locked", why: USER_NAMESPACES.to_owned() });
    }
    landlock(confinement, offer.kernel.landlock)?;
    if !confinement.calls().is_nothing() && !offer.kernel.seccomp {
        let why = "this kernel has no filters of system calls, or there is none for this kind of machine";
        return Err(Unenforceable { key: "syscalls", why: why.to_owned() });
    }
    Ok(means)
}

/// Every profile whose scripts gain the host in the end: [`Confinement::owns_the_host`]. Not those that may undo themselves, of
/// which there is more to say.
#[must_use]
pub fn owners(policy: &Policy, facts: &dyn HostFacts) -> Vec<String> {
    let Some(confinements) = &policy.confinements else { return Vec::new() };
    let owns = |name: &&String| {
        let found = confinements.of(name, Path::new("/"), facts);
        found.is_ok_and(|confinement| confinement.owns_the_host() && confinement.profile().undoing().is_empty())
    };
    policy.profiles.keys().filter(owns).cloned().collect()
}

/// Files of the agent's own that have another name, at which no script finds them hidden.
#[must_use]
pub fn linked(policy: &Policy) -> &[PathBuf] {
    policy.confinements.as_ref().map_or(&[], |confinements| confinements.linked())
}

/// This program's file, where it has names that nobody expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Where it is.
    pub program: PathBuf,
    /// How many of them there are, which may be anywhere in its file system.
    pub names: u64,
    /// The profiles whose scripts could change it by one that they can write to.
    pub profiles: Vec<String>,
}

/// Whether this program's file could be changed by a name that nobody expects.
#[must_use]
pub fn named(policy: &Policy, facts: &dyn HostFacts) -> Option<Named> {
    let (program, names, profiles) = policy.confinements.as_ref()?.named(facts)?;
    Some(Named { program: program.to_owned(), names, profiles: profiles.into_iter().map(str::to_owned).collect() })
}

/// Files of the agent's own that are hidden alone, as others have theirs in the same directory, from scripts that could read them
/// otherwise: one that is put in the place of such a file shows to those that run (`covers`).
#[must_use]
pub fn alone(policy: &Policy, facts: &dyn HostFacts) -> Vec<PathBuf> {
    let of = |confinements: &Confinements, name: &String| confinements.of(name, Path::new("/"), facts).ok();
    let each = policy.confinements.iter().flat_map(|all| policy.profiles.keys().filter_map(move |name| of(all, name)));
    let hidden = each.filter(Confinement::passes_modes).flat_map(|confinement| confinement.hidden().to_vec());
    let files = hidden.filter(|place| fs::symlink_metadata(place).is_ok_and(|found| !found.is_dir()));
    files.collect::<BTreeSet<_>>().into_iter().collect()
}

/// A directory in what scripts of a profile may write to, in which one of another profile lies, so that it is read-only for
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// The profile that may write around it.
    pub profile: String,
    /// The directory.
    pub directory: PathBuf,
    /// The first script there, with its profile.
    pub script: (String, String),
}

/// Every such directory: what a script loads from beside it, another profile's may have written.
#[must_use]
pub fn shared(policy: &Policy, facts: &dyn HostFacts) -> Vec<Shared> {
    let all = policy.confinements.iter().flat_map(|confinements| confinements.shared_directories(facts));
    all.map(|(profile, (directory, script, its))| Shared {
        profile: profile.to_owned(),
        directory: directory.to_owned(),
        script: (script.to_owned(), its.to_owned()),
    })
    .collect()
}

/// What keeps every script of a profile from starting, if something does. Where a script lies is a place that it sees.
fn groundless(confinement: &Confinement, policy: &Policy, profile: &str) -> Option<String> {
    let mut of_profile = policy.scripts.values().filter(|script| script.profile == profile).map(|script| &*script.path);
    let (_, first) = ground::places(confinement, of_profile.next().unwrap_or(Path::new("/"))).err()?;
    of_profile.all(|script| ground::places(confinement, script).is_err()).then_some(first)
}

/// Every profile whose runs would be refused on this host whatever the script is, with its key or the refusal's code, and
/// why. What an executor makes at its start is no reason.
///
/// **Invariant:** as [`start`](super::start), the caller has one thread.
#[must_use]
pub fn lacking(policy: &Policy, facts: &dyn HostFacts, offer: &Offer) -> Vec<(String, String)> {
    let Some(confinements) = policy.confinements.as_ref().map(Confinements::once_served) else { return Vec::new() };
    let judged = policy.profiles.keys().filter_map(|name| {
        let why = match confinements.of(name, Path::new("/"), facts) {
            Err(refusal) => {
                let text = refusal.text();
                text.strip_prefix(&format!("profile '{name}': ")).unwrap_or(text).to_owned()
            }
            Ok(confinement) => match applicable(&confinement, offer) {
                Err(lacking) => format!("{}: {}", lacking.key, lacking.why),
                Ok(_) => groundless(&confinement, policy, name)?,
            },
        };
        Some((name.clone(), why))
    });
    judged.collect()
}
