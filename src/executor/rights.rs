//! Giving up every right that the script must not have: steps 11 to 19 of `confine`.

use std::io;
use std::path::Path;

use super::confinement::Confinement;
use super::kind;
use super::limits::Means;
use super::offer;
use super::workshop;
use crate::sys::landlock::{self, Access, Ruleset};
use crate::sys::process::Fault;
use crate::sys::seccomp::Filter;
use crate::sys::{capability, descriptors, inherited, mount, user};

/// Does it, for this process and all that it will start.
pub(super) fn give_up(
    program: &Path,
    confinement: &Confinement,
    means: Means,
    filter: Option<&io::Result<Filter>>,
) -> Result<(), Fault> {
    let (profile, person) = (confinement.profile(), confinement.person());
    if let Some(processes) = means.processes_of_user {
        user::limit_processes(processes).map_err(Fault::confining("processes_max"))?;
    }
    // What was taken of them for this process's own start was taken before (`process::end_unless_program_within`).
    inherited::leave_half_of_the_signals().map_err(Fault::confining("process-namespace"))?;
    let rules = rules(confinement, program)?;
    user::set_groups(&person.groups).map_err(Fault::confining("groups"))?;
    capability::make_root_ordinary().map_err(Fault::confining("secure-bits"))?;
    capability::bound(confinement.caps()).map_err(Fault::confining("bounding-set"))?;
    user::become_ids(person.uid, person.gid).map_err(Fault::confining("run_as"))?;
    if profile.no_new_privileges {
        user::renounce_privileges().map_err(Fault::confining("no_new_privileges"))?;
    }
    if let Some(rules) = rules {
        rules.restrict().map_err(Fault::confining("landlock"))?;
    }
    if let Some(filter) = filter {
        let installed = filter.as_ref().map_err(|error| error.kind().into()).and_then(Filter::install);
        installed.map_err(Fault::confining("syscalls"))?;
    }
    capability::keep_only(confinement.caps()).map_err(Fault::confining("caps"))?;
    prove(confinement)?;
    // Last: up to here this process needs descriptors of its own, beside those of the monitor's that are closed only now.
    means.files.map_or(Ok(()), |files| descriptors::limit(files).map_err(Fault::confining("files_max")))
}

/// Reads everything back.
fn prove(confinement: &Confinement) -> Result<(), Fault> {
    let person = confinement.person();
    let caps = confinement.caps();
    if let Some(what) = capability::unproven(caps).map_err(Fault::confining("caps"))? {
        return Err(Fault::unproven("caps", what));
    }
    if !user::is_exactly(person.uid, person.gid, &person.groups).map_err(Fault::confining("run_as"))? {
        return Err(Fault::unproven("run_as", "the ids that the kernel tells are not the ones that were set"));
    }
    if user::has_renounced_privileges().map_err(Fault::confining("no_new_privileges"))?
        != confinement.profile().no_new_privileges
    {
        return Err(Fault::unproven("no_new_privileges", "the kernel tells another setting than was made"));
    }
    Ok(())
}

/// The Landlock rules: hard ones for `readable`; for `writable`, a second guard behind the read-only mounts, where the
/// kernel has it.
///
/// **Invariant:** nothing can be executed but what `readable` names and the script's own file: where the script may write,
/// it may read, and what it has put there is no program to it.
fn rules(confinement: &Confinement, program: &Path) -> Result<Option<Ruleset>, Fault> {
    let (readable, writable) = (confinement.profile().readable.as_deref(), confinement.writable());
    let version = offer::landlock(confinement, landlock::version());
    let Some(version) = version.map_err(|lacking| Fault::unproven(lacking.key, lacking.why))? else { return Ok(None) };
    let read = Access::READ.and(Access::EXECUTE);
    let handled = match (readable, writable) {
        (None, None) => return Ok(None),
        (Some(_), None) => read,
        (None, Some(_)) => Access::WRITE,
        (Some(_), Some(_)) => read.and(Access::WRITE),
    };
    let rules = Ruleset::new(handled, writable.is_some(), version).map_err(Fault::confining("landlock"))?;
    let allow = |step: &'static str, path: &Path, access: Access| {
        let fault = |error| Fault::confining(step)(error).about(path.display());
        mount::open_exactly(path).and_then(|opened| rules.allow(opened, access)).map_err(fault)
    };
    for path in readable.into_iter().flatten() {
        let opened = mount::open(path);
        let fault = |error| Fault::confining("readable")(error).about(path.display());
        opened.and_then(|opened| rules.allow(opened, read)).map_err(fault)?;
    }
    if readable.is_some() {
        allow("readable", Path::new("/proc"), Access::READ)?;
        // An exec of what is not there says so itself.
        if let Ok(opened) = mount::open(program) {
            rules.allow(opened, read).map_err(Fault::confining("readable"))?;
        }
    }
    let own = Access::READ.and(Access::WRITE);
    if let Some(writable) = writable {
        for path in writable.iter().map(std::path::PathBuf::as_path).chain(kind::PRIVATE.map(Path::new)) {
            match allow("writable", path, own) {
                // A host without one of the private places has none here either; the others were attached before.
                Err(fault) if !fault.is_not_found() => return Err(fault),
                _ => {}
            }
        }
    } else {
        for name in workshop::DEVICES {
            allow("readable", &Path::new("/dev").join(name.0), Access::READ)?;
        }
    }
    Ok(Some(rules))
}
