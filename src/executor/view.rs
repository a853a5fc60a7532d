//! Which of the host's files a run shows in their places, as `tree` puts it together; asked before there is one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::kind::PRIVATE;
use super::workshop;

/// `EACCES`, errno(3).
pub(super) const DENIED: i32 = 13;
/// `ENOENT`.
const MISSING: i32 = 2;
/// What is looked up where there are names of hosts to find out about.
const RESOLVER: &str = "/etc/resolv.conf";
const LOG: &str = "/dev/log";

/// What the script of one run sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    confinement: &'a Confinement,
    program: &'a Path,
}

impl<'a> View<'a> {
    /// In this confinement, with the script's own file in its place.
    pub(super) const fn new(confinement: &'a Confinement, program: &'a Path) -> Self {
        Self { confinement, program }
    }

    /// What the run is confined to.
    pub(super) const fn confinement(self) -> &'a Confinement {
        self.confinement
    }

    /// Whether what is at this path of the host is there for the script too: neither hidden, nor in a place that is the
    /// run's own and begins empty.
    ///
    /// # Errors
    /// As the script would meet it.
    pub(super) fn shows(self, path: &Path) -> io::Result<()> {
        if self.is_made(path) {
            return Ok(());
        }
        // A path that leads elsewhere has to be there at both ends.
        let leads = fs::canonicalize(path)?;
        [path, &leads].into_iter().try_for_each(|path| self.keeps(path))
    }

    fn keeps(self, path: &Path) -> io::Result<()> {
        if self.confinement.hidden().iter().any(|hidden| path.starts_with(hidden)) {
            return Err(io::Error::from_raw_os_error(DENIED));
        }
        if self.confinement.writable().is_some() && is_covered(path) && !self.is_brought(path) && !self.is_made(path) {
            return Err(io::Error::from_raw_os_error(MISSING));
        }
        Ok(())
    }

    /// Whether a private place has it, or has to have it above something else.
    fn is_brought(self, path: &Path) -> bool {
        let writable = self.confinement.writable().unwrap_or_default();
        let useful = [self.program.to_owned(), resolver(), PathBuf::from(LOG)];
        writable.iter().any(|tree| path.starts_with(tree) || tree.starts_with(path))
            || useful.iter().any(|file| file.starts_with(path) && file.symlink_metadata().is_ok())
    }

    /// Whether it is one of the things that every private `/dev` has.
    fn is_made(self, path: &Path) -> bool {
        let name = path.strip_prefix("/dev").ok().and_then(Path::to_str);
        self.confinement.writable().is_some() && Path::new("/dev").is_dir() && name.is_some_and(workshop::has)
    }

    /// Whether the profile's rules let the script execute this file: not where it may only write. Without `readable` there are
    /// none.
    pub(super) fn may_execute(self, file: &Path) -> bool {
        let Some(readable) = &self.confinement.profile().readable else { return true };
        let leads = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file = leads(file);
        readable.iter().map(PathBuf::as_path).chain([self.program]).any(|tree| file.starts_with(leads(tree)))
    }
}

/// Whether a private place lies over it.
fn is_covered(path: &Path) -> bool {
    let over = |place: &&str| path.starts_with(place) && path != Path::new(place) && Path::new(place).is_dir();
    PRIVATE.iter().any(over)
}

/// Where the file leads that a run brings into its private places.
fn resolver() -> PathBuf {
    fs::canonicalize(RESOLVER).unwrap_or_else(|_| PathBuf::from(RESOLVER))
}
