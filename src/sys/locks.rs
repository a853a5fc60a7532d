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

/// Gives this process a copy of its namespace of mounts in which each of them but the root's is locked to its place, with the
/// same root directory. Its working directory is the root directory then. A descriptor from before leads to a mount that is no
/// part of the copy: what comes back is what `directory` is there.
///
/// **Invariant:** as [`process::fork`], the caller has one thread, and shares its directories with nobody.
///
/// # Errors
/// The kernel has no user namespaces, or as many namespaces as it may have (`user.max_user_namespaces`, namespaces(7)); neither
/// `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`; no `/proc`.
pub fn close(directory: &OwnedFd) -> io::Result<OwnedFd> {
    // As it is now: that of another root directory may show others.
    let processes = spaces::directory("/proc")?;
    let own = || -> io::Result<OwnedFd> {
        Ok(openat(&processes, "self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
    };
    let (before, root) = (own()?, spaces::directory("/")?);
    let (mounts, root, directory) = process::aside(|| {
        // Who has another root directory than that of the mounts makes no user namespace (`EPERM`, `user_namespaces(7)`).
        setns(&before, CloneFlags::CLONE_NEWNS)?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fchdir(&root)?;
        chroot(".")?;
        // A copy has the root and the working directory of whoever makes it, in their new places.
        fchdir(directory)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        Ok((own()?, spaces::directory("/")?, spaces::directory(".")?))
    })?;
    spaces::enter(&mounts, &root)?;
    Ok(directory)
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
