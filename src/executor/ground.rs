//! What a run would meet on disk after its decision: the places that its profile names, and exec itself. They are looked
//! at and not touched; the script is not executed.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::confinement::Confinement;
use super::decide::Plan;
use super::interpreter::{self, Head};
use super::unstarted;
use super::view::{DENIED, View};
use crate::sys::process::NOT_A_PROGRAM;
use crate::sys::trial::{self, Somebody};
use crate::sys::{file, mount, user};
use crate::wire::explanation::Line;
use crate::wire::refusal::Refusal;

/// The gate's name.
const GATE: &str = "start";
/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, with which a script enters what a trial without them could not.
const ENTERING: [u8; 2] = [1, 2];

/// A step of the run that would fail.
pub(super) struct Failed {
    /// `not-confined` or `not-started`.
    pub(super) code: &'static str,
    step: &'static str,
    reason: String,
    /// Of exec about the program itself, or of the working directory: what the run would hear.
    error: Option<io::Error>,
}

impl Failed {
    /// In short, with its step.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.step, self.reason)
    }

    /// As the run tells it.
    fn told(&self, plan: &Plan) -> String {
        let reason = match &self.error {
            Some(error) if self.step == DIRECTORY => unstarted::unentered(&self.reason, error.kind(), plan),
            Some(error) => unstarted::unexecuted(error, plan),
            None => self.reason.clone(),
        };
        format!("{}: {reason}", self.step)
    }

    /// The key of the profile that names what is missing; nothing where it is the script.
    pub(super) fn key(&self) -> Option<&'static str> {
        match self.step {
            DIRECTORY => Some("working_directory"),
            "exec" => None,
            step => Some(step),
        }
    }
}

/// How much was tried of what did not fail.
pub(super) enum Tried {
    All,
    /// Not this.
    Not(&'static str),
}

/// Whether the steps of the run would find what they need.
///
/// **Invariant:** the caller has one thread: whether the script's account may execute it is tried by a child.
pub(super) fn found(plan: &Plan) -> Result<Tried, Failed> {
    let program = file::path_of(plan.program());
    match plan.confinement() {
        Some(confinement) => {
            let view = View::new(confinement, program);
            named_places(view).and_then(|()| directory(view)).and_then(|()| confined(view, program))
        }
        None => unconfined(program),
    }
}

/// The same as the last gate; and the key of the profile that refuses, if one does.
///
/// **Invariant:** as [`found`].
pub(super) fn look(plan: &Plan) -> (Line, Option<&'static str>) {
    match found(plan) {
        Ok(Tried::All) => {
            let text = "the script, its interpreter and what its profile names are there, for its account too";
            (Line::passes(GATE, text), None)
        }
        Ok(Tried::Not(why)) => (Line::not_judged(GATE, why), None),
        Err(failed) => (Line::refuses(GATE, &Refusal::new(failed.code, failed.told(plan))), failed.key()),
    }
}

/// Why nobody could start this file, whatever his rights: its interpreter or loader is not there, or it is nothing that is
/// executed. A relative interpreter begins at `directory`. None also where this user may not find out.
#[must_use]
pub fn unstartable(program: &Path, directory: &Path) -> Option<String> {
    let there = |path: &Path| match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(DENIED)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    };
    let reason = interpreted(program, directory, &there).err()?.reason;
    if reason.contains('\r') {
        return Some("its first line ends with a carriage return: save it with the line ends of Unix".to_owned());
    }
    let own = io::Error::from_raw_os_error(NOT_A_PROGRAM);
    let remedy =
        if reason == words(&own) { ": it is no program and does not begin with a line such as #!/bin/sh" } else { "" };
    Some(reason + remedy)
}

/// Whether what the profile names is there for a script at `program`; else its outcome, and which key it is, and why not.
///
/// **Invariant:** as [`found`].
pub(super) fn places(confinement: &Confinement, program: &Path) -> Result<(), (&'static str, String)> {
    let view = View::new(confinement, program);
    let found = named_places(view).and_then(|()| directory(view));
    found.map_err(|failed| {
        let key = failed.key().unwrap_or(failed.step);
        (failed.code, format!("{key}: {}", failed.reason))
    })
}

/// The step that enters the working directory.
const DIRECTORY: &str = "directory";

/// The trees that the profile names, as `tree` and `rights` open them.
fn named_places(view: View<'_>) -> Result<(), Failed> {
    let lost = |step, path: &Path, error: io::Error| {
        let why = match error.raw_os_error() {
            Some(mount::LINK) => " is reached through a symbolic link (write the path that it leads to)",
            _ => "",
        };
        let reason = format!("{}{why}: {}", path.display(), words(&error));
        Failed { code: "not-confined", step, reason, error: None }
    };
    let confinement = view.confinement();
    for path in confinement.writable().into_iter().flatten() {
        mount::open_exactly(path).map_err(|error| lost("writable", path, error))?;
    }
    for path in confinement.profile().readable.iter().flatten() {
        mount::open(path).map_err(|error| lost("readable", path, error))?;
        // What is hidden is there, and leads nowhere.
        match view.shows(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost("readable", path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether there is a file at all.
fn executable(program: &Path) -> Result<(), Failed> {
    match std::fs::metadata(program) {
        Ok(facts) if facts.is_file() => Ok(()),
        Ok(_) => Err(no_exec(io::Error::from_raw_os_error(DENIED))),
        Err(error) => Err(no_exec(error)),
    }
}

/// Whether this process, whose rights the script will have, can execute it.
fn unconfined(program: &Path) -> Result<Tried, Failed> {
    executable(program)?;
    let may = |path: &Path| {
        let denied = || Err(io::Error::from_raw_os_error(DENIED));
        if std::fs::metadata(path)?.is_file() && file::is_executable(path) { Ok(()) } else { denied() }
    };
    may(program).map_err(no_exec)?;
    interpreted(program, Path::new("/"), &may)
}

/// Whether the script's account can execute the file and its interpreter.
fn confined(view: View<'_>, program: &Path) -> Result<Tried, Failed> {
    executable(program)?;
    if !user::is_root() {
        return Ok(Tried::Not("only root can try whether the script's account may execute it"));
    }
    tried(view.confinement(), program).map_err(no_exec)?;
    let may = |path: &Path| {
        view.shows(path)?;
        if !std::fs::metadata(path)?.is_file() || !view.may_execute(path) {
            return Err(io::Error::from_raw_os_error(DENIED));
        }
        tried(view.confinement(), path)
    };
    interpreted(program, &view.confinement().profile().working_directory, &may)
}

/// Whether everything that exec opens besides the file is there and `may` be executed.
fn interpreted(program: &Path, directory: &Path, may: &dyn Fn(&Path) -> io::Result<()>) -> Result<Tried, Failed> {
    let chain = match interpreter::follow(program, directory) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Tried::Not("this user may not read the script, and so not find out what executes it"));
        }
        found => found.map_err(|error| no_start("exec", words(&error)))?,
    };
    for (what, path) in &chain.files {
        may(path).map_err(|error| no_start("exec", format!("{what} {}: {}", path.display(), words(&error))))?;
    }
    match chain.end {
        Some(Head::Nothing) => {
            let error = io::Error::from_raw_os_error(NOT_A_PROGRAM);
            let Some((what, path)) = chain.files.last() else { return Err(no_exec(error)) };
            Err(no_start("exec", format!("{what} {}: {}", path.display(), words(&error))))
        }
        Some(Head::Foreign) => {
            Ok(Tried::Not("it is for another kind of machine, or for a handler that is registered here"))
        }
        _ => Ok(Tried::All),
    }
}

/// Whether the working directory is there for the script, and its account can enter it, as far as this user can try.
fn directory(view: View<'_>) -> Result<(), Failed> {
    let directory = &view.confinement().profile().working_directory;
    let entered = || {
        if !std::fs::metadata(directory)?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        view.shows(directory)?;
        if user::is_root() { tried(view.confinement(), directory) } else { Ok(()) }
    };
    entered().map_err(|error| {
        let failed = no_start(DIRECTORY, format!("{}: {}", directory.display(), words(&error)));
        Failed { error: Some(error), ..failed }
    })
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

const fn no_start(step: &'static str, reason: String) -> Failed {
    Failed { code: "not-started", step, reason, error: None }
}

/// Exec's own word about the program.
fn no_exec(error: io::Error) -> Failed {
    let failed = no_start("exec", words(&error));
    Failed { error: Some(error), ..failed }
}

/// The system's words without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}
