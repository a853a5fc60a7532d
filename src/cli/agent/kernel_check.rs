//! What `self-check` says of the host's means of confinement, and of the profiles that they do not do for.

use std::path::Path;

use crate::agent::orders::{self, Kinship};
use crate::agent::snapshot::Places;
use crate::cli::out;
use crate::executor::{Named, OWNS_THE_HOST, Offer, OnDisk, Policy, Rights, Shared};
use crate::executor::{alone, incapable, lacking, linked, named, of_two_names, owners, shared};
use crate::wire::causes;

/// The profiles that cannot be applied here, or nothing where that is all of them, whatever they say; says so, and what there is
/// to apply them with.
pub(super) fn kernel(kinship: &Kinship, places: &Places) -> Option<Vec<String>> {
    let offer = offer(kinship);
    out::line(format!("  Kernel: {}", kernel_text(&offer)));
    out::line(format!("  Control groups: {}", groups_text(&offer)));
    let Ok(policy) = policy(kinship, places) else {
        // What is wrong with the files, or with what they say, is told by the checks of either.
        return Some(Vec::new());
    };
    warnings(&policy);
    if let Some(why) = incapable(&offer).filter(|_| kinship.applies_profiles()) {
        out::line(format!("  Executor: every run is refused here: {why}"));
        return None;
    }
    let lacking = lacking(&policy, &OnDisk, &offer);
    for (profile, why) in &lacking {
        out::line(format!("  Profile '{profile}': every run is refused here: {why}"));
    }
    Some(lacking.into_iter().map(|(profile, _)| profile).collect())
}

/// What the executor of this kinship has to confine with, or this host.
pub(super) fn offer(kinship: &Kinship) -> Offer {
    Offer::look(executor(kinship).ok().flatten())
}

/// What is no fault where it is meant.
fn warnings(policy: &Policy) {
    for profile in owners(policy, &OnDisk) {
        out::line(format!(
            "  Profile '{profile}': the agent's own places are out of its scripts' reach, but {OWNS_THE_HOST}"
        ));
    }
    for own in linked(policy) {
        out::line(format!("  Warning: {}", of_two_names(own)));
    }
    if let Some(Named { program, names, profiles }) = named(policy, &OnDisk) {
        let (program, all) = (program.display(), profiles.join("', '"));
        out::line(format!(
            "  Warning: {program} has more names than it is known by ({names} of them, hard links): by one within its reach, a \
             script of profile '{all}' could give it another mode and owner; see that none is there ('find PATH -xdev -samefile \
             {program}' for each path in 'writable'), or give it a file of its own ('cp -p {program} {program}.new && \
             mv {program}.new {program}')"
        ));
    }
    for file in alone(policy, &OnDisk) {
        out::line(format!(
            "  Warning: {} is the agent's and hidden alone, as others have files in the same directory: whoever runs with rights \
             over it is ended when it is replaced, and sees what is put there for it until then (give it a directory of its own)",
            file.display()
        ));
    }
    for Shared { profile, directory, script: (name, its) } in shared(policy, &OnDisk) {
        out::line(format!(
            "  Profile '{profile}': {} is in what it may write to, and read-only for it, as script '{name}' of profile '{its}' \
             is there; what that script loads from elsewhere is not kept from it",
            directory.display()
        ));
    }
}

/// The process of the executor that runs, where one is to be greeted; `None` where nobody can say which it is.
pub(super) fn executor(kinship: &Kinship) -> Result<Option<i32>, String> {
    let Kinship::System(path) = kinship else { return Ok(None) };
    // A socket that process 1 made is the init system's.
    greet(path).map(|maker| Some(maker).filter(|maker| *maker > 1))
}

/// Whether an executor answers, and which process made its socket.
pub(super) fn greet(path: &Path) -> Result<i32, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(orders::greet(path)).map_err(|error| causes::on_one_line(&error))
}

/// What the executor of this kinship makes of the files.
pub(super) fn policy(kinship: &Kinship, places: &Places) -> Result<Policy, String> {
    Policy::load(&places.config, &places.allowlist, &places.root, rights(kinship))
}

/// What the executor of this kinship may do.
pub(super) fn rights(kinship: &Kinship) -> Rights<'_> {
    match kinship {
        Kinship::Private => Rights::FrontEnd,
        Kinship::Own => Rights::Root { front_end: None, socket: None },
        Kinship::System(path) => Rights::Root { front_end: None, socket: Some(path) },
    }
}

fn kernel_text(offer: &Offer) -> String {
    let kernel = offer.kernel;
    let landlock = kernel.landlock.map_or_else(|| "no Landlock".to_owned(), |version| format!("Landlock {version}"));
    let has = |there: bool, name: &str| if there { name.to_owned() } else { format!("NO {name}") };
    let (mounts, filters) = (has(kernel.mount_setattr, "mount_setattr"), has(kernel.seccomp, "seccomp"));
    let users = has(kernel.user_namespaces, "user namespaces");
    format!("{landlock}, {mounts}, {filters}, {users}")
}

fn groups_text(offer: &Offer) -> String {
    let there = offer.controllers;
    let all = [(there.memory, "memory"), (there.processes, "pids"), (there.cpu, "cpu")];
    let named: Vec<&str> = all.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
    let named = if named.is_empty() { "none of memory, pids and cpu".to_owned() } else { named.join(", ") };
    let whose =
        if offer.running { "delegated to the executor" } else { "of the host, to be delegated to the executor" };
    format!("{named} ({whose})")
}
