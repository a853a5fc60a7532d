//! Mounts that are locked to what they are mounted on (`mount_namespaces(7)`).
//!
//! What is mounted over a directory covers it for whoever is in that namespace of mounts. When the namespace ends, with its last
//! process, the kernel takes its mounts off each other. Somebody to whom a directory was handed in time (`SCM_RIGHTS`, unix(7))
//! still has the mount that it lies on, and would from then on see there what had been covered. Mounts that are locked stay
//! together for as long as anybody has one of them. The kernel locks those of a namespace that is copied for a less privileged
//! user namespace (`user_namespaces(7)`), which is then the only thing that this user namespace is for: nobody ever is in it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir};

use super::process;
use super::spaces;

/// A copy of a namespace of mounts.
#[derive(Debug)]
pub struct Locked {
    /// The namespace.
    pub mounts: OwnedFd,
    /// What this process's root directory is there.
    pub root: OwnedFd,
    /// What another directory is there. A descriptor from before leads to a mount that is no part of the copy.
    pub directory: OwnedFd,
}

/// Copies this process's namespace of mounts, as it sees it, into one in which each of them but the root's is locked to its
/// place: that at `proof` was tried.
///
/// **Invariant:** as [`process::fork`], the caller has one thread.
///
/// # Errors
/// The kernel has no user namespaces, or as many namespaces as it may have (`user.max_user_namespaces`, namespaces(7)); neither
/// `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`; no `/proc`; or what is at `proof` is not locked.
pub fn copy(directory: &OwnedFd, proof: &Path) -> io::Result<Locked> {
    let processes = spaces::directory("/proc")?;
    process::aside(|| {
        // A copy has the root and the working directory of whoever makes it, in their new places.
        fchdir(directory)?;
        match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM) => unshare_in_chroot(&processes, directory)?,
            made => made?,
        }
        let copy =
            Locked { mounts: own(&processes)?, root: spaces::directory("/")?, directory: spaces::directory(".")? };
        if is_locked(proof)? {
            Ok(copy)
        } else {
            Err(io::Error::other("a mount of the copy is not locked to its place"))
        }
    })
}

impl Locked {
    /// Goes there. The working directory is the root directory then.
    ///
    /// **Invariant:** the caller shares its directories with nobody.
    ///
    /// # Errors
    /// Neither `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`.
    pub fn enter(&self) -> io::Result<()> {
        spaces::enter(&self.mounts, &self.root)
    }
}

/// Who has another root directory than that of the mounts makes no user namespace (`EPERM`, `user_namespaces(7)`), and may go
/// back to it in one.
fn unshare_in_chroot(processes: &OwnedFd, directory: &OwnedFd) -> io::Result<()> {
    let root = spaces::directory("/")?;
    setns(own(processes)?, CloneFlags::CLONE_NEWNS)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fchdir(&root)?;
    chroot(".")?;
    fchdir(directory)?;
    Ok(unshare(CloneFlags::CLONE_NEWNS)?)
}

/// The namespace of mounts that this process is in.
fn own(processes: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(openat(processes, "self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Whether what is mounted at `place` is locked there. It is unmounted if not.
fn is_locked(place: &Path) -> io::Result<bool> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(false),
        Err(Errno::EINVAL) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
