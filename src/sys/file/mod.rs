//! Files: written whole or not at all, read within bounds, opened only where nobody else could have put them.

mod digest;
mod facts;
mod fifo;
mod guarded;
mod identity;
mod links;
mod lock;
mod nameless;
mod private;
mod reserve;
mod trusted;
mod unfollowed;
mod write;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use digest::{Version, digest, digest_of, digest_open};
pub use facts::{
    Facts, age, could_fill_dir, create_dir, facts, give, is_executable, is_writable_dir, make_device, sweep,
};
pub use fifo::{make_fifo, nudge};
pub use guarded::{Guarded, Unguarded, doubt};
pub use identity::{Identity, Resolved, path_of, resolve};
pub use links::{Led, is_plainly_missing, led_by_links_of_root, resolve_by_links_of_root};
pub use lock::{LockGuard, is_locked, lock_directory, lock_exclusive, lock_shared, try_lock_exclusive};
pub use nameless::nameless;
pub use private::PrivateDir;
pub use reserve::{ends_with_its_disk, reserve};
pub use trusted::{TrustError, check_own, check_trusted_directory, open_trusted, resolve_kept_by, resolve_trusted};
pub use unfollowed::{is_of_this_user, owner, read_unfollowed};
pub use write::{Access, append_new, overwrite, write_atomic, write_atomic_by, write_new, write_soon};

/// A file operation that failed: which file, which step, and the system's reason as the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

impl FileError {
    /// Names the file and the step that `source` belongs to. `action` follows the word "cannot".
    #[must_use]
    pub fn new(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self { path: path.to_owned(), action, source }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The system's kind of reason.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// Whether the file, or a directory above it, does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind() == io::ErrorKind::NotFound
    }

    /// Whether this user lacks the permission.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.kind() == io::ErrorKind::PermissionDenied
    }

    /// Whether the file was there already ([`write_new`]).
    #[must_use]
    pub fn is_already_there(&self) -> bool {
        self.kind() == io::ErrorKind::AlreadyExists
    }
}

/// Reads a regular file of at most `limit` bytes, following symbolic links.
///
/// # Errors
/// Missing, unreadable, not a regular file (a FIFO is refused, never waited for), or larger than `limit`.
pub fn read_bounded(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    read_open(&open(path)?, path, limit)
}

/// Opens a regular file to be read, following symbolic links.
///
/// # Errors
/// As [`read_bounded`], whatever its size.
pub fn open_regular(path: &Path) -> Result<File, FileError> {
    let file = open(path)?;
    regular_size(&file, path).map(|_| file)
}

/// The first `most` bytes of a regular file, of a longer one too, following symbolic links.
///
/// # Errors
/// As [`read_bounded`], but for the length.
pub fn read_beginning(path: &Path, most: usize) -> Result<Vec<u8>, FileError> {
    let (file, mut bytes) = (open_regular(path)?, Vec::new());
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes).map_err(|source| FileError::new(path, "read", source))?;
    Ok(bytes)
}

/// Waits for nobody, also where the file is a FIFO.
fn open(path: &Path) -> Result<File, FileError> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    opened.map_err(|source| FileError::new(path, "open", source))
}

/// The size of an opened file that is a regular one.
fn regular_size(file: &File, path: &Path) -> Result<u64, FileError> {
    let fail = |source| FileError::new(path, "read", source);
    let facts = file.metadata().map_err(fail)?;
    if !facts.is_file() {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    Ok(facts.len())
}

/// Reads an opened regular file from its position to its end; `path` is for the error.
///
/// # Errors
/// As [`read_bounded`].
pub fn read_open(mut file: &File, path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let fail = |source| FileError::new(path, "read", source);
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let size = usize::try_from(regular_size(file, path)?.min(most)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(size.saturating_add(1));
    file.by_ref().take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > limit {
        let text = format!("it is larger than the {limit} bytes allowed here");
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, text)));
    }
    Ok(bytes)
}

/// Removes a file.
///
/// # Errors
/// Also when it does not exist: [`FileError::is_not_found`] tells.
pub fn remove(path: &Path) -> Result<(), FileError> {
    std::fs::remove_file(path).map_err(|source| FileError::new(path, "remove", source))
}

/// As [`remove`], and returns only when a crash of the host cannot bring the name back.
///
/// # Errors
/// As [`remove`], and syncing the directory; the file is gone by then.
pub fn remove_for_good(path: &Path) -> Result<(), FileError> {
    remove(path)?;
    write::sync_directory(path)
}

/// The names in a directory, sorted, without `.` and `..`. Names that begin with `.tmp-` are unfinished writes
/// and left out.
///
/// # Errors
/// The directory cannot be read.
pub fn list_dir(path: &Path) -> Result<Vec<OsString>, FileError> {
    let fail = |source| FileError::new(path, "list", source);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        names.push(entry.map_err(fail)?.file_name());
    }
    names.retain(|name| !name.as_encoded_bytes().starts_with(write::TEMPORARY.as_bytes()));
    names.sort();
    Ok(names)
}

/// The directory that holds `path`; `.` for a bare name.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn a_fifo_is_refused_at_once_and_a_large_file_is_too() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(read_bounded(&fifo, 10).is_err());
        assert!(read_bounded(dir.path(), 10).is_err());
        let file = dir.path().join("file");
        write_new(&file, b"0123456789", Access::private()).unwrap();
        assert_eq!(read_bounded(&file, 10).unwrap(), b"0123456789");
        assert_eq!(read_bounded(&file, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(
            (read_beginning(&file, 4).unwrap(), read_beginning(&file, 99).unwrap().len()),
            (b"0123".to_vec(), 10)
        );
        assert!(read_beginning(&fifo, 10).is_err() && read_beginning(dir.path(), 10).is_err());
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_stays_bounded() {
        assert!(read_bounded(Path::new("/proc/self/maps"), 10).is_err());
        assert!(!read_bounded(Path::new("/proc/self/comm"), 100).unwrap().is_empty());
    }

    #[test]
    fn an_error_names_file_and_step_and_keeps_its_cause() {
        let error = read_bounded(Path::new("/nonexistent/x"), 1).unwrap_err();
        assert_eq!(error.to_string(), "cannot open /nonexistent/x");
        assert!(error.is_not_found());
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn unfinished_writes_are_not_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".tmp-0123"] {
            write_new(&dir.path().join(name), b"", Access::private()).unwrap();
        }
        assert_eq!(list_dir(dir.path()).unwrap(), ["a", "b"]);
        remove(&dir.path().join("a")).unwrap();
        assert!(remove(&dir.path().join("a")).unwrap_err().is_not_found());
    }
}
