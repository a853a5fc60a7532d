//! Whole-file writes: a reader sees the old content or the new, also after a crash.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid};

use super::{FileError, directory_of};
use crate::sys::random;

/// How the names of unfinished writes begin. Independent of the final name, which may be as long as the file system
/// allows.
pub(super) const TEMPORARY: &str = ".tmp-";

/// Who may do what with a file that is about to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    mode: u32,
    owner: Option<Uid>,
    group: Option<Gid>,
}

impl Access {
    /// Exactly these permission bits, whatever the umask says; owner and group as the process makes them.
    #[must_use]
    pub const fn mode(mode: u32) -> Self {
        Self { mode, owner: None, group: None }
    }

    /// 0600: the owner alone.
    #[must_use]
    pub const fn private() -> Self {
        Self::mode(0o600)
    }

    /// 0644: everyone reads.
    #[must_use]
    pub const fn public() -> Self {
        Self::mode(0o644)
    }

    /// Gives the file to another owner, which only root may.
    #[must_use]
    pub const fn owner(mut self, owner: Uid) -> Self {
        self.owner = Some(owner);
        self
    }

    /// Gives the file to another group, which root may, and a member of that group.
    #[must_use]
    pub const fn group(mut self, group: Gid) -> Self {
        self.group = Some(group);
        self
    }
}

/// Replaces `path` with a file that holds `bytes`. A symbolic link at `path` is replaced, not followed.
///
/// # Errors
/// Any step; the old content is then untouched and nothing is left behind. Only when the last step, syncing the
/// directory, fails is the new content already in place.
pub fn write_atomic(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    write_atomic_by(path, access, |file| file.write_all(bytes))
}

/// As [`write_atomic`], where `content` writes it: what is too large to be in memory first.
///
/// # Errors
/// As [`write_atomic`], and those of `content`.
pub fn write_atomic_by(
    path: &Path,
    access: Access,
    content: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), FileError> {
    let temporary = Temporary::filled_by(path, access, content)?;
    temporary.sync(path)?;
    temporary.replace(path)?;
    sync_directory(path)
}

/// As [`write_atomic`], but without waiting for the disk, which can take longer than everything else that a process has
/// to do. If the host itself crashes within the next half minute or so, the file may be the old one, missing, or empty:
/// only for what nobody acts on.
///
/// # Errors
/// Any step; the old content is then untouched and nothing is left behind.
pub fn write_soon(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    Temporary::filled(path, bytes, access)?.replace(path)
}

/// Creates `path` with `bytes`; whoever comes second loses.
///
/// # Errors
/// [`FileError::is_already_there`] when something has that name (a dangling symbolic link counts), and any step of
/// writing.
pub fn write_new(path: &Path, bytes: &[u8], access: Access) -> Result<(), FileError> {
    let temporary = Temporary::filled(path, bytes, access)?;
    temporary.sync(path)?;
    fs::hard_link(&temporary.path, path).map_err(|source| FileError::new(path, "create", source))?;
    drop(temporary);
    sync_directory(path)
}

/// Creates an empty file that is only ever written at its end, by whomever.
///
/// # Errors
/// As [`write_new`].
pub fn append_new(path: &Path, mode: u32) -> Result<File, FileError> {
    let create = || {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let file = OpenOptions::new().append(true).create_new(true).mode(mode).custom_flags(flags).open(path)?;
        file.set_permissions(Permissions::from_mode(mode)).map(|()| file)
    };
    create().map_err(|source| FileError::new(path, "create", source))
}

/// Writes `bytes` into an existing file, which stays the same file: for one whose lock (flock(2)) others wait for. A
/// crash in between can leave a mixture, so only for what can be made again.
///
/// # Errors
/// Any step; the content is then unknown.
pub fn overwrite(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let write = || {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        file.write_all(bytes)?;
        file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        file.sync_all()
    };
    write().map_err(|source| FileError::new(path, "write", source))
}

/// A complete file under a name of its own, removed unless it was moved into place.
struct Temporary {
    path: PathBuf,
    file: File,
    armed: bool,
}

impl Temporary {
    fn filled(target: &Path, bytes: &[u8], access: Access) -> Result<Self, FileError> {
        Self::filled_by(target, access, |file| file.write_all(bytes))
    }

    fn filled_by(
        target: &Path,
        access: Access,
        content: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<Self, FileError> {
        let fail = |action| move |source| FileError::new(target, action, source);
        let random = random::bytes::<8>().map_err(fail("draw a temporary name beside"))?;
        let name = format!("{TEMPORARY}{:016x}", u64::from_be_bytes(random));
        let path = directory_of(target).join(name);
        // Owner bits alone until owner and group are right: wider ones would let the wrong group read for a moment.
        let file = create_exclusively(&path, access.mode & 0o600).map_err(fail("create a temporary file beside"))?;
        let mut temporary = Self { path, file, armed: true };
        set_access(&temporary.file, access).map_err(fail("set owner and mode of"))?;
        content(&mut temporary.file).map_err(fail("write"))?;
        Ok(temporary)
    }

    fn sync(&self, target: &Path) -> Result<(), FileError> {
        self.file.sync_all().map_err(|source| FileError::new(target, "sync", source))
    }

    fn replace(mut self, target: &Path) -> Result<(), FileError> {
        fs::rename(&self.path, target).map_err(|source| FileError::new(target, "replace", source))?;
        self.armed = false;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            // There is nobody to tell: the reason for coming here is the error that is already on its way.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Creates a file that did not exist, not following a symbolic link in the last place.
pub(super) fn create_exclusively(path: &Path, mode: u32) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).create_new(true).mode(mode).custom_flags(flags).open(path)
}

/// Owner first: chown clears mode bits, and the mode may only widen once the owner is right.
fn set_access(file: &File, access: Access) -> io::Result<()> {
    if access.owner.is_some() || access.group.is_some() {
        nix::unistd::fchown(file, access.owner, access.group)?;
    }
    file.set_permissions(Permissions::from_mode(access.mode))
}

/// A rename is durable only when the directory that records it is.
pub(super) fn sync_directory(path: &Path) -> Result<(), FileError> {
    let sync = || File::open(directory_of(path))?.sync_all();
    sync().map_err(|source| FileError::new(path, "sync the directory of", source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::file::{list_dir, read_bounded};

    #[test]
    fn the_content_is_replaced_and_the_mode_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"one", Access::private()).unwrap();
        for write in [write_atomic, write_soon] {
            write(&path, b"two", Access::mode(0o666)).unwrap();
            assert_eq!(read_bounded(&path, 10).unwrap(), b"two");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o666);
            write(&path, b"one", Access::private()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs::create_dir(&path).unwrap();
        for write in [write_atomic, write_soon] {
            let error = write(&path, b"x", Access::private()).unwrap_err();
            assert!(error.to_string().starts_with("cannot replace"), "{error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("no/file"), b"x", Access::private()).unwrap_err().is_not_found());
    }

    #[test]
    fn a_second_creation_fails_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new(&path, b"first", Access::private()).unwrap();
        assert!(write_new(&path, b"second", Access::private()).unwrap_err().is_already_there());
        assert_eq!(read_bounded(&path, 10).unwrap(), b"first");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/nonexistent/target", &link).unwrap();
        assert!(write_new(&link, b"x", Access::private()).unwrap_err().is_already_there());
        assert_eq!(list_dir(dir.path()).unwrap(), ["file", "link"]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        write_new(&target, b"old", Access::private()).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_atomic(&link, b"new", Access::private()).unwrap();
        assert_eq!(read_bounded(&target, 10).unwrap(), b"old");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn the_longest_file_name_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        write_atomic(&dir.path().join("x".repeat(255)), b"", Access::private()).unwrap();
    }

    #[test]
    fn owner_and_group_are_given_by_root_and_refused_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let access = Access::mode(0o640).owner(Uid::from_raw(12345)).group(Gid::from_raw(23456));
        let result = write_atomic(&path, b"x", access);
        if Uid::effective().is_root() {
            result.unwrap();
            let facts = fs::metadata(&path).unwrap();
            assert_eq!((facts.uid(), facts.gid(), facts.mode() & 0o7777), (12345, 23456, 0o640));
        } else {
            assert!(result.unwrap_err().to_string().starts_with("cannot set owner"));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
