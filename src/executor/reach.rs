//! What the scripts of a profile may write to, by every name that the host's mounts give it.
//!
//! A path is judged by where it lies, and what it leads to may lie at several places (bind mounts, overlays). So the few
//! writable paths are looked up, and everything that is to be kept from them is compared with the places found, without a call
//! of the kernel's for each; what is met is looked up then.

use std::io;
use std::path::{Path, PathBuf};

use super::host::HostFacts;
use crate::sys::mount::LINK;

/// The writable paths, and where else they show.
#[derive(Debug)]
pub(super) struct Reach<'a> {
    writable: &'a [PathBuf],
    elsewhere: Vec<PathBuf>,
    /// Whether no file's mode keeps the scripts from it. Of others, files and directories of root's are out of reach already.
    pub(super) passes_modes: bool,
}

impl<'a> Reach<'a> {
    /// What these reach now. One that is not there, or that a link leads to, reaches nothing: no run begins with such a one.
    ///
    /// # Errors
    /// Which cannot be found out about, and why.
    pub(super) fn of(writable: &'a [PathBuf], passes_modes: bool, facts: &dyn HostFacts) -> Result<Self, String> {
        let mut elsewhere = Vec::new();
        for path in writable {
            match facts.elsewhere(path) {
                Ok(found) => elsewhere.extend(found.all().cloned()),
                Err(error) if is_no_place(&error) => {}
                Err(error) => return Err(unknown(path, &error)),
            }
        }
        Ok(Self { writable, elsewhere, passes_modes })
    }

    /// The writable paths.
    pub(super) const fn writable(&self) -> &'a [PathBuf] {
        self.writable
    }

    /// Whether what is at this path, or would be if it were made, can be written to.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.writable.iter().chain(&self.elsewhere).any(|above| path.starts_with(above))
    }

    /// At which of the writable places scripts find what is at this one.
    ///
    /// # Errors
    /// That cannot be found out about, and why.
    pub(super) fn places(&self, path: &Path, facts: &dyn HostFacts) -> Result<Vec<PathBuf>, String> {
        if !self.has(path) {
            return Ok(Vec::new());
        }
        let others = facts.elsewhere(path).map_err(|error| unknown(path, &error))?;
        let all = [path.to_owned()].into_iter().chain(others.all().cloned());
        Ok(all.filter(|place| self.holds(place)).collect())
    }

    /// What has to be read-only for the scripts so that they change and replace nothing of what is at this path, nor of what
    /// somebody puts in its place meanwhile: the directory that it lies in, wherever that shows. A file by itself is covered only
    /// until it is replaced (`covers`); it does where a mount shows that one alone, and never the next.
    ///
    /// # Errors
    /// Such a directory is one of the writable paths; or as [`Reach::places`].
    pub(super) fn guards(&self, path: &Path, facts: &dyn HostFacts) -> Result<Vec<PathBuf>, Open> {
        let places = self.places(path, facts).map_err(Open::Unknown)?;
        let mut guards = if places.is_empty() { Vec::new() } else { self.guards_above(path, facts)? };
        let alone = |place: &PathBuf| self.names(place) || !guards.iter().any(|above| place.parent() == Some(above));
        let alone: Vec<PathBuf> = places.into_iter().filter(alone).collect();
        guards.extend(alone);
        Ok(guards)
    }

    /// The same of a link, which no mount shows alone.
    ///
    /// # Errors
    /// As [`Reach::guards`].
    pub(super) fn guards_above(&self, path: &Path, facts: &dyn HostFacts) -> Result<Vec<PathBuf>, Open> {
        let Some(directory) = path.parent() else { return Ok(Vec::new()) };
        let others = facts.elsewhere(directory).map_err(|error| Open::Unknown(unknown(directory, &error)))?;
        let all = [directory.to_owned()].into_iter().chain(others.whole);
        let shown: Vec<PathBuf> = all.filter(|place| self.holds(place)).collect();
        match shown.iter().find(|place| self.names(place)) {
            Some(named) => Err(Open::Named(named.clone())),
            None => Ok(shown),
        }
    }

    /// Whether a place is in a writable path.
    fn holds(&self, place: &Path) -> bool {
        self.writable.iter().any(|above| place.starts_with(above))
    }

    /// Whether a place is a writable path.
    pub(super) fn names(&self, place: &Path) -> bool {
        self.writable.iter().any(|path| path == place)
    }
}

/// Why something cannot be kept from those who may write to these paths.
#[derive(Debug)]
pub(super) enum Open {
    /// The directory that it lies in is named itself.
    Named(PathBuf),
    /// It cannot be found out about, and why.
    Unknown(String),
}

/// What is wrong with a path that cannot be looked at.
pub(super) fn unknown(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be found out about: {error}", path.display())
}

/// Whether that is no place for a script to write to.
fn is_no_place(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || error.raw_os_error() == Some(LINK)
}
