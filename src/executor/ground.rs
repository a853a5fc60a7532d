//! What a run would meet on disk after its decision: the places that its profile names, and exec itself. They are looked
//! at and not touched; the script is not executed.

use std::io;
use std::path::Path;

use super::confinement::Confinement;
use super::decide::Plan;
use super::kind;
use crate::sys::trial::{self, Somebody};
use crate::sys::{file, mount, user};
use crate::wire::explanation::Line;
use crate::wire::refusal::Refusal;

/// The gate's name.
const GATE: &str = "start";
/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, with which a script enters what a trial without them could not.
const ENTERING: [u8; 2] = [1, 2];

/// A step of the run that would fail.
struct Failed {
    /// `not-confined` or `not-started`.
    code: &'static str,
    step: &'static str,
    reason: String,
}

/// The last gate: whether the steps of the run would find what they need.
///
/// **Invariant:** the caller has one thread: whether the script's account may execute it is tried by a child.
#[must_use]
pub fn look(plan: &Plan) -> Line {
    match plan.confinement().map_or(Ok(()), named_places).and_then(|()| program(plan)) {
        Ok(true) => Line::passes(GATE, "the script and what its profile names are there; its account may execute it"),
        Ok(false) => Line::not_judged(GATE, "only root can try whether the script's account may execute it"),
        Err(Failed { code, step, reason }) => Line::refuses(GATE, &Refusal::new(code, format!("{step}: {reason}"))),
    }
}

/// The trees that the profile names, as `tree` and `rights` open them.
fn named_places(confinement: &Confinement) -> Result<(), Failed> {
    let lost = |step, path: &Path, error: io::Error| {
        let link = if error.raw_os_error() == Some(mount::LINK) { " is reached through a symbolic link" } else { "" };
        let reason = format!("{}{link}: {}", path.display(), words(&error));
        Failed { code: "not-confined", step, reason }
    };
    for path in confinement.writable().into_iter().flatten() {
        mount::open_exactly(path).map_err(|error| lost("writable", path, error))?;
    }
    for path in confinement.profile().readable.iter().flatten() {
        mount::open(path).map_err(|error| lost("readable", path, error))?;
    }
    Ok(())
}

/// Whether the script's account can enter the working directory and execute the file; `false` where this user cannot
/// try.
fn program(plan: &Plan) -> Result<bool, Failed> {
    let program = file::path_of(plan.program());
    let fails = |step, reason| Failed { code: "not-started", step, reason };
    let cannot_execute = |error: io::Error| fails("exec", words(&error));
    let facts = std::fs::metadata(program).map_err(cannot_execute)?;
    if !facts.is_file() {
        return Err(cannot_execute(io::Error::from_raw_os_error(DENIED)));
    }
    let Some(confinement) = plan.confinement() else {
        let executable = file::is_executable(program);
        return if executable { Ok(true) } else { Err(cannot_execute(io::Error::from_raw_os_error(DENIED))) };
    };
    let directory = &confinement.profile().working_directory;
    let cannot_enter = |error: io::Error| fails("directory", format!("{}: {}", directory.display(), words(&error)));
    stays(confinement, directory).map_err(cannot_enter)?;
    if !user::is_root() {
        return Ok(false);
    }
    tried(confinement, directory).map_err(cannot_enter)?;
    tried(confinement, program).map_err(cannot_execute)?;
    Ok(true)
}

/// `EACCES`, errno(3): what exec says of a file that is none, or that may not be executed.
const DENIED: i32 = 13;
/// `ENOENT`.
const MISSING: i32 = 2;

/// Whether a directory is there for the script too: not in a place that is its own and empty, and not hidden.
fn stays(confinement: &Confinement, directory: &Path) -> io::Result<()> {
    if !std::fs::metadata(directory)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    if confinement.hidden().iter().any(|hidden| directory.starts_with(hidden)) {
        return Err(io::Error::from_raw_os_error(DENIED));
    }
    let Some(writable) = confinement.writable() else { return Ok(()) };
    let covered = |place: &&str| directory.starts_with(place) && directory != Path::new(place);
    let kept = writable.iter().any(|path| directory.starts_with(path) || path.starts_with(directory));
    if kind::PRIVATE.iter().any(covered) && !kept {
        return Err(io::Error::from_raw_os_error(MISSING));
    }
    Ok(())
}

/// Has the script's account try it.
fn tried(confinement: &Confinement, path: &Path) -> io::Result<()> {
    let (person, caps) = (confinement.person(), confinement.caps());
    if ENTERING.iter().any(|cap| caps.has(*cap)) {
        return Ok(());
    }
    let somebody = Somebody { uid: person.uid, gid: person.gid, groups: &person.groups };
    trial::can_enter(somebody, path)?
}

/// The system's words without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
