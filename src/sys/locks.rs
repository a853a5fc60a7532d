//! Mounts that are locked to what they are mounted on (`mount_namespaces(7)`).
//!
//! What is mounted over a directory covers it for whoever is in that namespace of mounts. When the namespace ends, with its last
//! process, the kernel takes its mounts off each other. Somebody to whom a directory was handed in time (`SCM_RIGHTS`, unix(7))
//! still has the mount that it lies on, and would from then on see there what had been covered. Mounts that are locked stay
//! together for as long as anybody has one of them. The kernel locks those of a namespace that is copied for a less privileged
//! user namespace (`user_namespaces(7)`), which is then the only thing that this user namespace is for: nobody ever is in it.
//!
//! Whoever has made a user namespace has every right in it, by the number of its account alone and without any capability. So
//! it is made in the name of an account that there is not: a script of root's could otherwise mount and unmount in its run.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Uid, chroot, fchdir, setresuid};

use super::call::{Numbers, call};
use super::file::Identity;
use super::mount::Changes;
use super::mounts;
use super::process;
use super::spaces::{self, Listing};

/// For setresuid(2).
const UNCHANGED: Uid = Uid::from_raw(u32::MAX);

/// A namespace of mounts that copies are made of. It lives while one of these descriptors is open.
#[derive(Debug)]
pub struct Model {
    mounts: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
    /// The user namespace that its copies belong to.
    users: OwnedFd,
    changes: Changes,
}

/// A copy of a namespace of mounts.
#[derive(Debug)]
pub struct Locked {
    /// The namespace.
    pub mounts: OwnedFd,
    /// What the model's root directory is there.
    pub root: OwnedFd,
    /// What the model's other directory is there. A descriptor from before leads to a mount that is no part of the copy.
    pub directory: OwnedFd,
}

impl Model {
    /// How many descriptors it consists of.
    pub const SIZE: usize = 5;

    /// This process's namespace, with its root directory and another one in it.
    ///
    /// **Invariant:** as [`process::fork`], the caller has one thread.
    ///
    /// # Errors
    /// The kernel has no user namespaces, or as many as it may have (`user.max_user_namespaces`, namespaces(7)); or neither
    /// `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`.
    pub fn here(directory: OwnedFd, listing: &Listing) -> io::Result<Self> {
        let (mounts, root) = (listing.own("mnt")?, spaces::directory("/")?);
        let users = process::aside(|| {
            // Who has another root directory than that of the mounts makes no user namespace (`EPERM`), so it goes back there.
            setns(&mounts, CloneFlags::CLONE_NEWNS)?;
            call(Numbers::SetSecureBits(libc::SECBIT_NO_SETUID_FIXUP))?;
            setresuid(UNCHANGED, listing.last_user()?, UNCHANGED)?;
            unshare(CloneFlags::CLONE_NEWUSER)?;
            listing.own("user")
        })?;
        // Nothing is mounted in it any more.
        Ok(Self { mounts, root, directory, users, changes: Changes::watch_by(listing)? })
    }

    /// What tells whether it is still what it was. The kernel takes off what is mounted on a file or directory, in every
    /// namespace but that of whoever removes this, or puts another in its place (unlink(2), rename(2)): nobody has to be in a
    /// model for it to lose what it is there for, and what is there then may be the same file again, by a roll-back.
    #[must_use]
    pub const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// To be sent to another process, which puts them together again with [`Model::received`].
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; Self::SIZE] {
        let [mounts, root, directory, users] =
            [&self.mounts, &self.root, &self.directory, &self.users].map(|each| each.as_fd());
        [mounts, root, directory, users, self.changes.as_fd()]
    }

    /// What another process has sent.
    #[must_use]
    pub fn received([mounts, root, directory, users, changes]: [OwnedFd; Self::SIZE]) -> Self {
        Self { mounts, root, directory, users, changes: changes.into() }
    }

    /// Copies it into a namespace in which each of its mounts but the root's is locked to its place: that at `proof` was tried.
    ///
    /// **Invariant:** as [`process::fork`], the caller has one thread.
    ///
    /// # Errors
    /// There are as many namespaces as there may be (namespaces(7)); neither `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`; or what is at
    /// `proof` is not locked.
    pub fn copy(&self, listing: &Listing, proof: &Path) -> io::Result<Locked> {
        process::aside(|| {
            setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
            setns(&self.users, CloneFlags::CLONE_NEWUSER)?;
            fchdir(&self.root)?;
            chroot(".")?;
            // A copy has the root and the working directory of whoever makes it, in their new places.
            fchdir(&self.directory)?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            let (root, directory) = (spaces::directory("/")?, spaces::directory(".")?);
            let copy = Locked { mounts: listing.own("mnt")?, root, directory };
            if is_locked(proof)? {
                Ok(copy)
            } else {
                Err(io::Error::other("a mount of the copy is not locked to its place"))
            }
        })
    }
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

/// Whether this process has another root directory than that of its mounts (chroot(2)). Whoever may change his root directory leaves
/// such a one, and what is mounted in it, behind.
///
/// **Invariant:** as [`process::fork`], the caller has one thread.
///
/// # Errors
/// Neither `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`, or there is no `/proc`.
pub fn is_in_a_part_of_the_tree() -> io::Result<bool> {
    let mounts = Listing::open()?.own("mnt")?;
    let whole = process::aside(|| {
        setns(&mounts, CloneFlags::CLONE_NEWNS)?;
        spaces::directory("/")
    })?;
    let place = |root: &OwnedFd| Ok::<_, io::Error>((mounts::number(root)?, Identity::of_opened(root)?));
    Ok(place(&spaces::directory("/")?)? != place(&whole)?)
}

/// Whether what is mounted at `place` is locked there. It is unmounted if not.
fn is_locked(place: &Path) -> io::Result<bool> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(false),
        Err(Errno::EINVAL) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
