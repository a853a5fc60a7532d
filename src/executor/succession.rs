//! Taking up another version of this program's file, where the front-end asks for it: it is about to do so itself, and
//! could not start a root executor any more.
//!
//! Which file, the front-end has no say in: the path was told when it still was root, and nobody but root may write to
//! the file or to a directory above it. The process stays the same, so that monitors whose service has ended stay its
//! descendants. There is no way back from that, so the file is tried first: it has to say that it could be an executor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use crate::sys::file;
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, Program, Trial};
use crate::wire::causes;

/// The last word of a process that has taken over from another.
const TAKEN_OVER: &str = "taken-over";

/// The last word of one that is to say whether it could, and do no more.
const COULD_SERVE: &str = "could-serve";
/// What one says that could; its version comes behind.
const READY: &str = "ready to serve: ctrl-exec-exec ";
/// How long it may take for that: less than the front-end waits.
const TRIAL: Duration = Duration::from_secs(3);

/// What a process answers that is only asked whether it could be an executor; nothing where it is to be one.
#[must_use]
pub fn asked(words: &[OsString]) -> Option<String> {
    let asked = words.last().is_some_and(|word| word == COULD_SERVE);
    asked.then(|| format!("{READY}{}", env!("CARGO_PKG_VERSION")))
}

/// What this process was started as.
#[derive(Debug)]
pub struct Succession {
    words: Vec<OsString>,
    taken_over: bool,
}

impl Succession {
    /// The words of this process: its role, what an executor needs to know (`count` words), and the path of its file.
    #[must_use]
    pub fn new(role: &str, words: &[OsString], count: usize) -> Self {
        let own = words.iter().take(count + 1).cloned();
        let taken_over = words.get(count + 1).is_some_and(|word| word == TAKEN_OVER);
        Self { words: std::iter::once(role.into()).chain(own).collect(), taken_over }
    }

    /// Whether another process has been here before, which had a configuration.
    pub(super) const fn taken_over(&self) -> bool {
        self.taken_over
    }

    /// Becomes what is at the path now, with `control` as its socket. Only returns if that fails, with the reason; then
    /// this process is as it was.
    ///
    /// # Errors
    /// It is not as it was: it is in the host's network, where no executor may stay.
    pub(super) fn take_up(&self, control: &OwnedFd, network: &HostNetwork) -> io::Result<String> {
        let path = self.words.last().map_or(Path::new(""), Path::new);
        let found = match file::resolve_trusted(path) {
            Ok(found) => found.path,
            Err(error) => {
                let reason = causes::on_one_line(&error);
                return Ok(format!("the executor does not take up {}: {reason}", path.display()));
            }
        };
        if let Some(reason) = self.unfit(&found) {
            return Ok(format!("the executor does not take up {}: {reason}", found.display()));
        }
        let stays = |error: io::Error| format!("the executor cannot become {}: {error}", found.display());
        // Where it finds the host's network, it leaves it by itself.
        if let Err(error) = network.enter() {
            return Ok(stays(error));
        }
        let words = self.words.iter().map(OsString::as_os_str).chain([OsStr::new(TAKEN_OVER)]);
        let error = process::become_private(&found, &words.collect::<Vec<_>>(), control);
        network.leave_again()?;
        Ok(stays(error))
    }

    /// Why the file could be no executor; nothing if it could.
    fn unfit(&self, path: &Path) -> Option<String> {
        let argv = std::iter::once(OsString::from("ctrl-exec")).chain(self.words.iter().cloned()).collect();
        match Program::at(path.to_owned(), argv).attempt(COULD_SERVE, TRIAL) {
            Ok(Trial::Passed(said)) if said.lines().any(|line| line.starts_with(READY)) => None,
            Ok(Trial::Passed(_)) => Some("it is no executor, or one that cannot take over".to_owned()),
            Ok(Trial::Failed(said)) => {
                Some(format!("it could not serve: {}", said.split_whitespace().collect::<Vec<_>>().join(" ")))
            }
            Ok(Trial::Silent) => {
                Some(format!("it did not say within {} seconds whether it could serve", TRIAL.as_secs()))
            }
            Err(error) => Some(format!("it cannot be executed: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_gets_the_same_words_and_knows_what_it_is() {
        let words = ["config", "limit", "/file"].map(OsString::from);
        let first = Succession::new("role", &words, 2);
        assert!(!first.taken_over());
        assert_eq!(first.words, ["role", "config", "limit", "/file"]);
        let next = Succession::new("role", &[&words[..], &[TAKEN_OVER.into()]].concat(), 2);
        assert!(next.taken_over());
        assert_eq!(next.words, first.words);
    }
}
