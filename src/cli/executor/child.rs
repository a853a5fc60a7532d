//! The executor's process, started by the agent's `serve` with the control socket as standard input.
//!
//! Its words are read here and not by clap: this process must stay small, and only the agent starts it.

use std::ffi::OsString;
use std::path::Path;

use super::failed;
use crate::audit::{Event, Ident, Level, Logger, Sockets};
use crate::cli::out;
use crate::conf::Root;
use crate::executor::{self, Policy, Rights, ServeError, Succession};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::process::Family;
use crate::sys::{descriptors, process};

/// The role of [`own`].
const OWN: &str = "serve-own";
/// What it needs to know. Behind it stand the path of its file and what a successor is told.
const WORDS: usize = 4;

/// An executor with the agent's own rights: both configuration files, the prefix, the limit on descriptors that the agent was
/// started with, and whose its runs are.
#[must_use]
pub fn private(words: &[OsString]) -> Exit {
    run(words, false)
}

/// The same with root's rights, for an agent that is about to give up its own.
#[must_use]
pub fn own(words: &[OsString]) -> Exit {
    if let Some(ready) = executor::asked(words) {
        // It would have what this process has, and nobody looks again.
        if let Err(error) = executor::able() {
            return told(&failed(error));
        }
        out::line(ready);
        return Exit::Success;
    }
    run(words, true)
}

fn run(words: &[OsString], privileged: bool) -> Exit {
    serve(words, privileged).unwrap_or_else(|failure| told(&failure))
}

fn told(failure: &Failure) -> Exit {
    out::error(format!("Error: {failure}"));
    failure.exit()
}

fn serve(words: &[OsString], privileged: bool) -> Result<Exit, Failure> {
    let by_hand =
        |error| Failure::new(Exit::Usage, error).hint("this role is started by 'ctrl-exec-agent serve', not by hand");
    let [config, allowlist, prefix, limit, ..] = words else {
        return Err(by_hand(std::io::Error::other("the executor takes at least four words")));
    };
    let root = Root::new(Some(prefix.into()));
    let log = Logger::open(Ident::Executor, Sockets::new(|place| root.path(place)));
    let control = process::control_from_stdin().map_err(by_hand)?;
    let limit = limit.to_str().and_then(|limit| limit.parse().ok());
    let limit = limit.ok_or_else(|| by_hand(std::io::Error::other("the limit on descriptors is no number")))?;
    descriptors::put_back(limit).map_err(|error| Failure::new(Exit::Unavailable, error))?;
    let load = |rights| Policy::load(Path::new(config), Path::new(allowlist), &root, rights);
    let served: Result<(), ServeError> = if privileged {
        let succession = Succession::new(OWN, words, WORDS);
        executor::serve_own(control, || load(Rights::Root { front_end: None, socket: None }), &log, &succession)
    } else {
        mark(words.get(WORDS), &log);
        executor::serve_private(control, || load(Rights::FrontEnd), &log)
    };
    match served {
        Ok(()) => Ok(Exit::Success),
        // The agent says why.
        Err(error @ ServeError::Told(_)) => Ok(failed(error).exit()),
        Err(error) => Err(failed(error)),
    }
}

/// Marks this process and so what its scripts will start, by which the agent finds whoever is left of them when nobody else does.
fn mark(word: Option<&OsString>, log: &Logger) {
    let family = word.and_then(|word| word.to_str()).and_then(Family::parse);
    if let Err(error) = family.map_or_else(process::leave_family, Family::mark_service) {
        log.emit(Event::new(Level::Warning, "exec-unmarked").field("REASON", error));
    }
}
