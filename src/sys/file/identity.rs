//! Which file a path means.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, Mode, fstat};

/// Which file a path means: the same device and inode are the same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of the file that `path` leads to now, following symbolic links.
    ///
    /// # Errors
    /// There is none, or a directory on the way may not be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|facts| Self::from_facts(&facts))
    }

    /// Of the directory that `path` leads to now, following symbolic links; none where there is none.
    #[must_use]
    pub fn of_directory(path: &Path) -> Option<Self> {
        let facts = std::fs::metadata(path).ok()?;
        facts.is_dir().then(|| Self::from_facts(&facts))
    }

    /// The kernel's numbers of the device that it is on, as it spells them (`proc_pid_mountinfo(5)`).
    #[must_use]
    pub fn device(self) -> String {
        format!("{}:{}", libc::major(self.device), libc::minor(self.device))
    }

    /// Whether both are files of one file system.
    #[must_use]
    pub const fn is_beside(&self, other: &Self) -> bool {
        self.device == other.device
    }

    /// Of what has this name now, also if that is a symbolic link itself.
    ///
    /// # Errors
    /// There is none, or a directory on the way may not be searched.
    pub fn of_itself(path: &Path) -> io::Result<Self> {
        std::fs::symlink_metadata(path).map(|facts| Self::from_facts(&facts))
    }

    /// Of an opened file.
    ///
    /// # Errors
    /// Not expected of the kernel.
    pub fn of_opened(opened: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_stat(&fstat(opened)?))
    }

    pub(super) fn from_facts(facts: &std::fs::Metadata) -> Self {
        Self { device: facts.dev(), inode: facts.ino() }
    }

    /// Of the file that fstat(2) has told about.
    pub(super) const fn from_stat(facts: &FileStat) -> Self {
        Self { device: facts.st_dev, inode: facts.st_ino }
    }
}

/// A path as the kernel resolved it, with the file it led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Absolute, without symbolic links or dots.
    pub path: PathBuf,
    /// The file that was found there.
    pub identity: Identity,
}

/// Resolves a path to the file that it means now. The path is read back from the opened descriptor, so that path and
/// identity belong together even if something on the way is exchanged meanwhile.
///
/// # Errors
/// There is no such file, or `/proc` is missing, or the file was removed or replaced while it was looked at.
pub fn resolve(path: &Path) -> io::Result<Resolved> {
    let opened = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let facts = fstat(&opened)?;
    let identity = Identity::from_stat(&facts);
    let path = std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    if Identity::of(&path)? == identity { Ok(Resolved { path, identity }) } else { Err(Errno::ESTALE.into()) }
}

/// A path in the form that execve(2) takes, as a path again.
#[must_use]
pub fn path_of(text: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(text.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{Access, write_new};

    #[test]
    fn a_path_is_resolved_to_the_file_it_means() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        write_new(&base.join("file"), b"", Access::private()).unwrap();
        std::os::unix::fs::symlink("file", base.join("link")).unwrap();
        let found = resolve(&base.join("./link")).unwrap();
        assert_eq!(found.path, base.join("file"));
        assert_eq!(found.identity, Identity::of(&base.join("file")).unwrap());
        assert_ne!(found.identity, Identity::of(&base).unwrap());
        assert_eq!(resolve(&base.join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
