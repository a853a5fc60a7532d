//! A unix socket that listens for one account, bound in its place at once. One that the init system hands over is
//! `handover`'s.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, umask};

use super::file::{self, FileError, Identity, TrustError};
use super::user::{Gid, Uid};

/// A socket that cannot be put in its place.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("{} is in use: another process answers there", .0.display())]
    InUse(PathBuf),
    /// Something else has its name.
    #[error("{} is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Its directory is not to be found from everywhere.
    #[error("the path '{}' of the socket is not absolute", .0.display())]
    Relative(PathBuf),
    /// Others may put things into its directory.
    #[error("the socket's directory is not safe")]
    Directory(#[from] TrustError),
    /// A step failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A listening socket with a path, removed with it where it is still this one.
#[derive(Debug)]
pub struct Bound {
    listener: UnixListener,
    path: PathBuf,
    identity: Identity,
}

impl Bound {
    /// Listens at `path`, for `owner` and root alone (mode 0600). What stands there after a process that has died is
    /// replaced.
    ///
    /// The socket is made under another name, given to its owner and moved into place when it listens: nobody ever
    /// finds it with a wider mode, or deaf. Its directory and all above it must be root's alone, or a name could be
    /// exchanged between these steps.
    ///
    /// **Invariant:** the caller has one thread, since the umask is the process's.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn new(path: &Path, owner: Uid, group: Gid) -> Result<Self, BindError> {
        if !path.is_absolute() {
            return Err(BindError::Relative(path.to_owned()));
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        file::check_trusted_directory(directory)?;
        Self::placed(path, |fresh| {
            let before = umask(Mode::from_bits_truncate(0o177));
            let listener = UnixListener::bind(fresh);
            umask(before);
            let listener = listener.map_err(|source| FileError::new(path, "listen at", source))?;
            file::give(fresh, owner, group)?;
            Ok(listener)
        })
    }

    /// Listens at `path`, for this process's account and whoever has the socket's group (mode 0660), which is the
    /// directory's where that has the bit for it. What stands there after a process that has died is replaced.
    ///
    /// # Errors
    /// [`BindError`].
    pub fn shared(path: &Path) -> Result<Self, BindError> {
        let fail = |source| FileError::new(path, "listen at", source);
        Self::placed(path, |fresh| {
            let listener = UnixListener::bind(fresh).map_err(fail)?;
            // Whoever else may write to the directory must not have another file of ours opened to its group.
            fchmodat(AT_FDCWD, fresh, Mode::from_bits_truncate(0o660), FchmodatFlags::NoFollowSymlink)
                .map_err(|errno| fail(errno.into()))?;
            Ok(listener)
        })
    }

    /// Makes a socket beside its place, and moves it there.
    fn placed(path: &Path, make: impl FnOnce(&Path) -> Result<UnixListener, FileError>) -> Result<Self, BindError> {
        let fail = |action| move |source: io::Error| FileError::new(path, action, source);
        // Two that start at once must not both find that nobody is there.
        let _lock = file::lock_exclusive(&beside(path, ".lock"), 0o600)?;
        vacant(path)?;
        let fresh = beside(path, ".new");
        match file::remove(&fresh) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
        let listener = make(&fresh)?;
        listener.set_nonblocking(true).map_err(fail("listen at"))?;
        let identity = Identity::of(&fresh).map_err(fail("examine"))?;
        std::fs::rename(&fresh, path).map_err(fail("move the socket to"))?;
        Ok(Self { listener, path: path.to_owned(), identity })
    }

    /// Removes the socket's name, if it is still this socket's.
    pub fn remove(&self) {
        if Identity::of(&self.path).is_ok_and(|found| found == self.identity) {
            // It may go meanwhile; and nobody who connects to a name without a listener is misled.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Its place.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with it, by name.
    #[must_use]
    pub fn fault(&self, source: io::Error) -> FileError {
        FileError::new(&self.path, "listen at", source)
    }

    /// The socket itself.
    #[must_use]
    pub const fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

/// Whether [`Bound::shared`] could listen at `path`.
///
/// # Errors
/// Why it could not.
pub fn check(path: &Path) -> Result<(), BindError> {
    vacant(path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    if file::is_writable_dir(directory) {
        return Ok(());
    }
    let kind = if directory.is_dir() { io::ErrorKind::PermissionDenied } else { io::ErrorKind::NotFound };
    Err(FileError::new(directory, "make a socket in", kind.into()).into())
}

/// `path` with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Nobody listens at `path`: nothing is there, or what a dead process left.
fn vacant(path: &Path) -> Result<(), BindError> {
    match knock(path) {
        Ok(()) => Err(BindError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Also of a file that is no socket, connect(2).
        Err(_) if !is_socket(path)? => Err(BindError::NoSocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // Its queue is full: somebody is there who does not take.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::InUse(path.to_owned())),
        Err(source) => Err(FileError::new(path, "look for another listener at", source).into()),
    }
}

/// Whether somebody listens at `path`. Never waits: one with a full queue who does not take would be waited for without end.
fn knock(path: &Path) -> io::Result<()> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    Ok(connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?)
}

fn is_socket(path: &Path) -> Result<bool, FileError> {
    use std::os::unix::fs::FileTypeExt;
    let facts = std::fs::symlink_metadata(path).map_err(|source| FileError::new(path, "examine", source))?;
    Ok(facts.file_type().is_socket())
}
#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::user;

    /// Only root has a directory that passes; the temporary one does not.
    fn trusted() -> Option<tempfile::TempDir> {
        user::tests::has_root().then(|| tempfile::tempdir_in("/var/lib").unwrap())
    }

    fn facts(path: &Path) -> (u32, u32, u32) {
        let facts = std::fs::symlink_metadata(path).unwrap();
        assert!(facts.file_type().is_socket());
        (facts.mode() & 0o7777, facts.uid(), facts.gid())
    }

    #[test]
    fn a_socket_belongs_to_its_account_alone_and_a_dead_one_is_replaced() {
        let Some(dir) = trusted() else { return };
        let path = dir.path().join("sock");
        let make = || Bound::new(&path, Uid::from_raw(65_534), Gid::from_raw(65_534));
        let first = make().unwrap();
        assert_eq!(facts(&path), (0o600, 65_534, 65_534));
        assert!(matches!(make(), Err(BindError::InUse(_))));
        drop(UnixStream::connect(&path).unwrap());
        drop(first);
        let second = make().unwrap();
        drop(UnixStream::connect(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let third = make().unwrap();
        second.remove();
        assert!(path.exists(), "another's socket stays");
        third.remove();
        assert!(!path.exists());
    }

    #[test]
    fn a_listener_with_a_full_queue_is_somebody_and_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let deaf = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(deaf.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&deaf, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        assert_eq!(knock(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(matches!(Bound::shared(&path), Err(BindError::InUse(_))));
    }

    #[test]
    fn no_other_file_is_replaced_and_no_open_directory_is_used() {
        let Some(dir) = trusted() else { return };
        let make = |path: &Path| Bound::new(path, Uid::from_raw(1), Gid::from_raw(1));
        let path = dir.path().join("file");
        file::write_new(&path, b"x", file::Access::private()).unwrap();
        assert!(matches!(make(&path), Err(BindError::NoSocket(_))));
        assert!(matches!(make(Path::new("/tmp/sock")), Err(BindError::Directory(TrustError::Untrusted { .. }))));
        assert!(make(&dir.path().join("x".repeat(200))).is_err());
    }
}
