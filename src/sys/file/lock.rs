//! Exclusive locks that the kernel releases when their holder dies (flock(2)).
//!
//! **Invariant:** a lock file is never removed. Two processes could otherwise each hold the lock of a different file
//! of the same name.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::FileError;
use super::write::create_exclusively;

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct LockGuard {
    file: File,
}

/// The locked file, to be handed to another process: the lock is held until every copy is closed.
impl AsFd for LockGuard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Waits for the lock on `path` and takes it. The file is made with `mode` (umask independent) if it is missing.
///
/// # Errors
/// The file cannot be opened or made, or is a symbolic link.
pub fn lock_exclusive(path: &Path, mode: u32) -> Result<LockGuard, FileError> {
    let file = open(path, mode).map_err(|source| FileError::new(path, "open the lock file", source))?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(LockGuard { file }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::new(path, "lock", error)),
        }
    }
}

/// Waits until nobody holds the lock on `path` exclusively, and takes a share of it. Others may share it too.
///
/// # Errors
/// As [`lock_exclusive`].
pub fn lock_shared(path: &Path, mode: u32) -> Result<LockGuard, FileError> {
    let file = open(path, mode).map_err(|source| FileError::new(path, "open the lock file", source))?;
    loop {
        match file.lock_shared() {
            Ok(()) => return Ok(LockGuard { file }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::new(path, "lock", error)),
        }
    }
}

/// Waits for the lock on a directory and takes it. Unlike a file of its own it needs no owner that all its users agree
/// on: whoever may list the directory may lock it.
///
/// # Errors
/// It is no directory, or may not be listed.
pub fn lock_directory(path: &Path) -> Result<LockGuard, FileError> {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|source| FileError::new(path, "open", source))?;
    loop {
        match file.lock() {
            Ok(()) => return Ok(LockGuard { file }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(FileError::new(path, "lock", error)),
        }
    }
}

/// Takes the lock on `path` if nobody holds it; `None` if somebody does.
///
/// # Errors
/// As [`lock_exclusive`].
pub fn try_lock_exclusive(path: &Path, mode: u32) -> Result<Option<LockGuard>, FileError> {
    let file = open(path, mode).map_err(|source| FileError::new(path, "open the lock file", source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(LockGuard { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(FileError::new(path, "lock", source)),
    }
}

/// Whether somebody holds the lock on `path` exclusively; `None` where there is no such file. Those who look do not
/// disturb each other.
///
/// # Errors
/// The file cannot be opened, or is a symbolic link.
pub fn is_locked(path: &Path) -> Result<Option<bool>, FileError> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(FileError::new(path, "open the lock file", source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(false)),
        Err(TryLockError::WouldBlock) => Ok(Some(true)),
        Err(TryLockError::Error(source)) => Err(FileError::new(path, "examine the lock of", source)),
    }
}

/// Opens for reading and writing, because a lock over NFS needs a writable descriptor.
fn open(path: &Path, mode: u32) -> io::Result<File> {
    match create_exclusively(path, mode & 0o700) {
        Ok(file) => file.set_permissions(Permissions::from_mode(mode)).map(|()| file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_refused_and_a_released_one_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock_exclusive(&path, 0o660).unwrap();
        assert!(try_lock_exclusive(&path, 0o660).unwrap().is_none());
        drop(held);
        // A process that another test has forked has it for a moment more.
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while try_lock_exclusive(&path, 0o660).unwrap().is_none() {
            assert!(std::time::Instant::now() < deadline, "the lock is not given");
            std::thread::yield_now();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    }

    #[test]
    fn a_lock_is_held_until_its_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(is_locked(&path).unwrap(), None);
        let held = lock_exclusive(&path, 0o600).unwrap();
        let copy = held.as_fd().try_clone_to_owned().unwrap();
        drop(held);
        assert_eq!(is_locked(&path).unwrap(), Some(true));
        drop(copy);
        let looking = lock_shared(&path, 0o600).unwrap();
        assert_eq!(is_locked(&path).unwrap(), Some(false));
        drop(looking);
    }

    #[test]
    fn a_waiting_process_gets_the_lock_when_its_holder_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = lock_exclusive(&path, 0o600).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| lock_exclusive(&path, 0o600).unwrap());
            drop(held);
            drop(waiter.join().unwrap());
        });
    }

    #[test]
    fn a_symbolic_link_is_not_a_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        assert!(lock_exclusive(&link, 0o600).is_err());
        assert!(!dir.path().join("elsewhere").exists());
    }
}
