//! Files in a directory that another account may write to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::{Gid, Uid};

use super::{FileError, read_open};

/// Reads a regular file of at most `limit` bytes. A symbolic link in the last place is refused: whoever may write to the
/// directory would choose what is opened, a device for example.
///
/// # Errors
/// As [`super::read_bounded`], and a symbolic link.
pub fn read_unfollowed(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|source| FileError::new(path, "open", source))?;
    read_open(&file, path, limit)
}

/// Owner, group and permission bits of a file.
///
/// # Errors
/// It cannot be asked.
pub fn owner(path: &Path) -> Result<(Uid, Gid, u32), FileError> {
    let facts = fs::metadata(path).map_err(|source| FileError::new(path, "examine", source))?;
    Ok((Uid::from_raw(facts.uid()), Gid::from_raw(facts.gid()), facts.mode() & 0o7777))
}

/// Whether a path leads to something that belongs to this process's user.
#[must_use]
pub fn is_of_this_user(path: &Path) -> bool {
    owner(path).is_ok_and(|(owner, ..)| owner == Uid::effective())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::{Access, write_new};

    #[test]
    fn a_link_is_not_followed_and_a_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        write_new(&file, b"text", Access::private()).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read_unfollowed(&file, 10).unwrap(), b"text");
        assert!(read_unfollowed(&link, 10).is_err());
        assert!(read_unfollowed(&file, 3).is_err() && read_unfollowed(dir.path(), 10).is_err());
        assert!(read_unfollowed(&dir.path().join("none"), 10).unwrap_err().is_not_found());
        assert_eq!(owner(&file).unwrap(), (Uid::effective(), Gid::effective(), 0o600));
    }
}
