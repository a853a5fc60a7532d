//! Mounts that are locked to what they are mounted on (`mount_namespaces(7)`).
//!
//! What is mounted over a directory covers it for whoever is in that namespace of mounts. When the namespace ends, with its last
//! process, the kernel takes its mounts off each other. Somebody to whom a directory was handed in time (`SCM_RIGHTS`, unix(7))
//! still has the mount that it lies on, and would from then on see there what had been covered. Mounts that are locked stay
//! together for as long as anybody has one of them. The kernel locks those of a namespace that is copied for a less privileged
//! user namespace (`user_namespaces(7)`), which is then the only thing that this user namespace is for: nobody ever is in it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use super::fdpass;
use super::process;
use super::spaces;

/// What mounts are locked with.
#[derive(Debug)]
pub struct Locks {
    users: OwnedFd,
    /// `/proc` as it was then: the one that shows when mounts are locked may be of other processes.
    processes: OwnedFd,
}

impl Locks {
    /// Makes a user namespace with nobody in it.
    ///
    /// **Invariant:** as [`process::fork`], the caller has one thread.
    ///
    /// # Errors
    /// The kernel has none, or as many as it may have (`user.max_user_namespaces`, sysctl(8)); no `CAP_SYS_ADMIN`; no `/proc`.
    pub fn make() -> io::Result<Self> {
        let processes = open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let own = namespace(&processes, "mnt")?;
        let users = process::aside(|| {
            // Nobody may make one whose root directory is not that of the mounts (`EPERM`, user_namespaces(7)).
            setns(&own, CloneFlags::CLONE_NEWNS)?;
            unshare(CloneFlags::CLONE_NEWUSER)?;
            namespace(&processes, "user")
        })?;
        Ok(Self { users, processes })
    }

    /// Gives this process a copy of its namespace of mounts in which each of them but the root's is locked to its place, with
    /// the same root directory. Its working directory is the root directory then. What holds the copy goes to `keeper`, a unix
    /// socket, besides, and is held as long as nobody takes it from there: the process with which a namespace of mounts ends
    /// does the kernel's work on them before its own end is told, and somebody may be waiting for that of this one.
    ///
    /// **Invariant:** as [`process::fork`], the caller has one thread, and shares its directories with nobody.
    ///
    /// # Errors
    /// The kernel's limit on namespaces is reached; neither `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`; nobody is at the other end.
    pub fn close(&self, keeper: impl AsFd) -> io::Result<()> {
        let (mounts, root) = process::aside(|| {
            setns(&self.users, CloneFlags::CLONE_NEWUSER)?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            Ok((namespace(&self.processes, "mnt")?, spaces::root()?))
        })?;
        fdpass::send(keeper, b"k", &[mounts.as_fd()])?;
        spaces::enter(&mounts, &root)
    }
}

/// Whether what is mounted at `place` is locked there. **It is unmounted if not**: asked where that is to end everything.
///
/// # Errors
/// Not expected of the kernel.
pub fn is_locked(place: &Path) -> io::Result<bool> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(false),
        Err(Errno::EINVAL) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn namespace(processes: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    Ok(openat(processes, format!("self/ns/{name}").as_str(), flags, Mode::empty())?)
}
