//! Namespaces that another process has made, to be joined (setns(2)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{self, OFlag, openat};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, chroot, fchdir};

/// The namespaces of the first process of a run. They live while one of these descriptors is open or somebody is in them;
/// that of processes, while its first process lives.
#[derive(Debug)]
pub struct Spaces {
    processes: OwnedFd,
    mounts: OwnedFd,
    objects: OwnedFd,
    /// The root directory, which is not that of the mounts where this program runs in a part of the host's tree.
    root: OwnedFd,
    /// None if it is in a network that nobody is to join.
    network: Option<OwnedFd>,
}

/// Where the kernel lists namespaces (proc(5)): still there when something else is mounted over it.
#[derive(Debug)]
pub struct Listing(OwnedFd);

impl Listing {
    /// Opens it.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn open() -> io::Result<Self> {
        directory("/proc").map(Self)
    }

    /// The last number of a user that there may be: no account's on a host, where it is 4294967294, and hardly one's in a
    /// container (`user_namespaces(7)`).
    pub(super) fn last_user(&self) -> io::Result<Uid> {
        let map = io::read_to_string(File::from(self.open_own("uid_map")?))?;
        let last = map.lines().filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (first, count) = (numbers.next()?.ok()?, numbers.nth(1)?.ok()?);
            first.checked_add(count.checked_sub(1)?)
        });
        last.max().map(Uid::from_raw).ok_or_else(|| io::Error::other("/proc/self/uid_map has no line"))
    }

    /// A namespace that this process is in, by its name in `/proc/self/ns`.
    pub(super) fn own(&self, name: &str) -> io::Result<OwnedFd> {
        self.open_own(&format!("ns/{name}"))
    }

    /// A file in `/proc/self`, by its name there.
    pub(super) fn open_own(&self, name: &str) -> io::Result<OwnedFd> {
        let name = format!("self/{name}");
        Ok(openat(&self.0, name.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
    }
}

impl Spaces {
    /// Those of this process, but for that of mounts: this one, with a root directory in it.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn own(listing: &Listing, network: bool, (mounts, root): (OwnedFd, OwnedFd)) -> io::Result<Self> {
        let network = network.then(|| listing.own("net")).transpose()?;
        Ok(Self { processes: listing.own("pid")?, mounts, objects: listing.own("ipc")?, root, network })
    }

    /// To be sent to another process, which puts them together again with [`Spaces::received`].
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let always = [&self.processes, &self.mounts, &self.objects, &self.root];
        always.into_iter().chain(&self.network).map(AsFd::as_fd).collect()
    }

    /// What another process has sent; `None` if that is not what it says. Each is known by the kernel for what it is when it
    /// is joined.
    #[must_use]
    pub fn received(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let mut each = descriptors.into_iter();
        let (processes, mounts, objects, root) = (each.next()?, each.next()?, each.next()?, each.next()?);
        let network = each.next();
        each.next().is_none().then_some(Self { processes, mounts, objects, root, network })
    }

    /// Joins those of System V objects, of network if it is one of these, and of mounts, with the root directory of whoever made
    /// them as this process's root and working directory.
    ///
    /// **Invariant:** the caller shares neither its directories nor its descriptors with another process.
    ///
    /// # Errors
    /// Neither `CAP_SYS_ADMIN` nor `CAP_SYS_CHROOT`.
    pub fn join(&self) -> io::Result<()> {
        setns(&self.objects, CloneFlags::CLONE_NEWIPC)?;
        if let Some(network) = &self.network {
            setns(network, CloneFlags::CLONE_NEWNET)?;
        }
        enter(&self.mounts, &self.root)
    }

    /// The next children of this process are in that of processes.
    pub(super) fn lead_children_in(&self) -> io::Result<()> {
        Ok(setns(&self.processes, CloneFlags::CLONE_NEWPID)?)
    }
}

/// A directory, to be worked in.
pub(super) fn directory(path: &str) -> io::Result<OwnedFd> {
    Ok(fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Joins a namespace of mounts, with a root directory that is in it: setns(2) alone would lead out of a chroot(2).
pub(super) fn enter(mounts: &OwnedFd, root: &OwnedFd) -> io::Result<()> {
    setns(mounts, CloneFlags::CLONE_NEWNS)?;
    fchdir(root)?;
    Ok(chroot(".")?)
}

/// From now on this process has System V objects of its own, and with `network` a network: nothing but a loopback interface
/// that is down.
///
/// # Errors
/// As [`own_host_name`].
pub fn own_objects(network: bool) -> io::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWIPC;
    flags.set(CloneFlags::CLONE_NEWNET, network);
    Ok(unshare(flags)?)
}

/// From now on this process has a host name of its own, which is the host's for the time being.
///
/// # Errors
/// No `CAP_SYS_ADMIN`, or the kernel's limit on namespaces is reached.
pub fn own_host_name() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWUTS)?)
}
