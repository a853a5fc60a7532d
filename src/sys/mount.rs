//! The tree of mounts that a process sees: its own namespace of them, made read-only, private and hidden in parts.
//!
//! What applies to a whole tree is one call ([`restrict`], `mount_setattr(2)`, Linux 5.12), so that no mount below is
//! forgotten and none can come in between. A tree is moved about as a descriptor ([`Tree`], `open_tree(2)`, Linux 5.2).
#![expect(unsafe_code, reason = "the call has no safe binding")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{SysconfVar, sysconf};

use super::call::{Numbers, Opening, call, open as open_by};
use super::process::{Fork, Pid, Signal, fork, signal};
use super::spaces::{Listing, Spaces};

/// Properties of mounts, as a set of the kernel's `MOUNT_ATTR_*` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(u64);

impl Attributes {
    /// No property.
    pub const NONE: Self = Self(0);
    /// Nothing can be written, whoever asks.
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-ID bits and file capabilities mean nothing.
    pub const NO_SUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device nodes cannot be opened.
    pub const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Nothing can be executed.
    pub const NO_EXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether each of `others` is among these.
    #[must_use]
    pub const fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    fn flags(self) -> MsFlags {
        let pairs = [
            (Self::READ_ONLY, MsFlags::MS_RDONLY),
            (Self::NO_SUID, MsFlags::MS_NOSUID),
            (Self::NO_DEVICES, MsFlags::MS_NODEV),
            (Self::NO_EXEC, MsFlags::MS_NOEXEC),
        ];
        pairs.into_iter().filter(|(attribute, _)| self.contain(*attribute)).map(|(_, flag)| flag).collect()
    }
}

/// Gives this process a namespace of mounts of its own, and makes the mounts private: nothing that is mounted here shows
/// outside, and nothing that is mounted outside from now on shows here.
///
/// # Errors
/// No `CAP_SYS_ADMIN`, or the kernel's limit on namespaces is reached.
pub fn leave() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    set_attributes(AT_FDCWD.as_raw_fd(), c"/", libc::AT_RECURSIVE, Change { propagation: libc::MS_PRIVATE, set: 0 })
}

/// The process namespace that this process is in itself.
#[derive(Debug)]
pub struct OwnProcesses(File);

impl OwnProcesses {
    /// Finds it.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn find() -> io::Result<Self> {
        Ok(Self(File::open("/proc/self/ns/pid")?))
    }

    /// Forks a child that is the first of a process namespace of its own (`pid_namespaces(7)`). This process's next
    /// children are none of that namespace's.
    ///
    /// **Invariant:** as [`fork`], the caller has one thread.
    ///
    /// # Errors
    /// As [`leave`], or out of processes. After a failed way back this process can start nothing any more.
    pub fn fork_into_new(&self) -> io::Result<Fork> {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let forked = fork();
        if !matches!(forked, Ok(Fork::Child)) {
            setns(&self.0, CloneFlags::CLONE_NEWPID)?;
        }
        forked
    }

    /// Has `fork` make a child that is in the process namespace of `there`. This process's next children are none of that
    /// namespace's.
    ///
    /// # Errors
    /// The first process there has ended; or as [`OwnProcesses::fork_into_new`].
    pub fn fork_into(&self, there: &Spaces, fork: impl FnOnce() -> io::Result<Pid>) -> io::Result<Pid> {
        there.lead_children_in()?;
        let forked = fork();
        if let Err(error) = setns(&self.0, CloneFlags::CLONE_NEWPID) {
            if let Ok(child) = forked {
                signal(child, Signal::SIGKILL);
            }
            return Err(error.into());
        }
        forked
    }
}

/// Tells whether anything was mounted, unmounted or changed in a mount namespace (`proc_pid_mountinfo(5)`): that which this
/// process, or another, was in when it was made.
#[derive(Debug)]
pub struct Changes(File);

impl Changes {
    /// From now on.
    ///
    /// # Errors
    /// There is no `/proc`.
    pub fn watch() -> io::Result<Self> {
        Ok(Self(File::open("/proc/self/mountinfo")?))
    }

    /// The same, while something else may be mounted over `/proc`.
    ///
    /// # Errors
    /// As [`Changes::watch`].
    pub fn watch_by(listing: &Listing) -> io::Result<Self> {
        Ok(Self(listing.open_own("mountinfo")?.into()))
    }

    /// In another process's namespace, from now on.
    ///
    /// # Errors
    /// It has ended, or this process may not look at it.
    pub fn watch_of(process: Pid) -> io::Result<Self> {
        Ok(Self(File::open(format!("/proc/{process}/mountinfo"))?))
    }

    /// What is mounted there now.
    ///
    /// # Errors
    /// Out of memory.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        let (mut file, mut text) = (&self.0, Vec::new());
        file.rewind()?;
        file.read_to_end(&mut text)?;
        Ok(text)
    }

    /// Whether there was a change in one of the two since this was last asked. It is told once, of both.
    ///
    /// # Errors
    /// Out of memory.
    pub fn happened_in(one: &Self, other: &Self) -> io::Result<bool> {
        super::poll::any_closed([one.as_fd(), other.as_fd()], std::time::Duration::ZERO)
    }

    /// Whether there was a change since this was last asked, or [`super::poll::readable_or_changed`] has told it.
    ///
    /// # Errors
    /// Out of memory.
    pub fn happened(&self) -> io::Result<bool> {
        super::poll::closed(self.0.as_fd(), std::time::Duration::ZERO)
    }
}

impl From<OwnedFd> for Changes {
    /// What another process has sent.
    fn from(sent: OwnedFd) -> Self {
        Self(sent.into())
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives properties to the mount at `path` and to every mount below it, at once or not at all.
///
/// # Errors
/// Nothing is mounted at `path`, or the kernel is older than 5.12.
pub fn restrict(path: &Path, attributes: Attributes) -> io::Result<()> {
    let change = Change { propagation: 0, set: attributes.0 };
    set_attributes(AT_FDCWD.as_raw_fd(), &text(path)?, libc::AT_RECURSIVE, change)
}

/// Takes off whatever is mounted at `path`, with all that is mounted below it. What is locked there stays. It waits for every
/// processor of the host.
///
/// # Errors
/// No `CAP_SYS_ADMIN`, or there is no such path.
pub fn take_off(path: &Path) -> io::Result<()> {
    // One may lie over another, and below those is the directory itself.
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The properties of the mount that holds `path`.
///
/// # Errors
/// There is no such path.
pub fn attributes(path: &Path) -> io::Result<Attributes> {
    let flags = statvfs(path)?.flags();
    let pairs = [
        (FsFlags::ST_RDONLY, Attributes::READ_ONLY),
        (FsFlags::ST_NOSUID, Attributes::NO_SUID),
        (FsFlags::ST_NODEV, Attributes::NO_DEVICES),
        (FsFlags::ST_NOEXEC, Attributes::NO_EXEC),
    ];
    let present = pairs.into_iter().filter(|(flag, _)| flags.contains(*flag));
    Ok(present.fold(Attributes::NONE, |all, (_, attribute)| all.and(attribute)))
}

/// Opens what `path` names, without access to its content. No component may be a symbolic link, so that what is opened
/// is where it is said to be (`RESOLVE_NO_SYMLINKS`, openat2(2), Linux 5.6).
///
/// # Errors
/// `ELOOP` for a link; or there is no such path.
pub fn open_exactly(path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(AT_FDCWD, path, how)?)
}

/// The system's error number for a symbolic link where none is allowed.
pub const LINK: i32 = libc::ELOOP;

/// Opens what `path` leads to, without access to its content.
///
/// # Errors
/// There is no such file or directory.
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    // The C library follows its own open(2) with a second call, for kernels that do not know the flag.
    Ok(openat2(AT_FDCWD, path, OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC))?)
}

/// Opens a path in an opened directory, without access to its content and following no link: a link itself is opened.
///
/// # Errors
/// There is no such path, or a link is on the way.
pub fn open_within(directory: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_BENEATH);
    Ok(openat2(directory, path, how)?)
}

/// Whether this is an opened directory.
///
/// # Errors
/// Not expected of the kernel.
pub fn is_directory(opened: impl AsFd) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(opened)?.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR)
}

/// A tree of mounts that is attached nowhere, or nowhere yet.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// A copy of what is mounted at and below an opened file or directory.
    ///
    /// # Errors
    /// It was opened in another mount namespace.
    pub fn copy(opened: impl AsFd) -> io::Result<Self> {
        open_by(Opening::CopyOfTree { from: opened.as_fd().as_raw_fd(), below: true }).map(Self)
    }

    /// A copy of the one mount that an opened directory is in, from there on: what is mounted below does not show in it. Where
    /// the kernel lets nobody see what a mount covers (`MNT_LOCKED`, `mount_namespaces(7)`), as [`Tree::copy`].
    ///
    /// # Errors
    /// As [`Tree::copy`].
    pub fn copy_bare(opened: impl AsFd) -> io::Result<Self> {
        let from = opened.as_fd().as_raw_fd();
        let copy = |below| open_by(Opening::CopyOfTree { from, below }).map(Self);
        match copy(false) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => copy(true),
            copied => copied,
        }
    }

    /// The processes of this process namespace (proc(5)), in a new file system.
    ///
    /// # Errors
    /// The kernel lacks the file system, or is older than 5.2.
    pub fn of_processes(attributes: Attributes) -> io::Result<Self> {
        let made = open_by(Opening::NewProcesses)?;
        call(Numbers::CreateFileSystem(made.as_raw_fd()))?;
        open_by(Opening::Mount { from: made.as_raw_fd(), attributes: attributes.0 }).map(Self)
    }

    /// Gives properties to every mount of the tree, and makes them private, as [`leave`] does: a copy of a shared mount is
    /// shared too.
    ///
    /// # Errors
    /// As [`restrict`].
    pub fn restrict(&self, attributes: Attributes) -> io::Result<()> {
        let flags = libc::AT_RECURSIVE | libc::AT_EMPTY_PATH;
        let change = Change { propagation: libc::MS_PRIVATE, set: attributes.0 };
        set_attributes(self.0.as_raw_fd(), c"", flags, change)
    }

    /// Attaches the tree over an opened file or directory: a directory over a directory, a file over a file.
    ///
    /// # Errors
    /// It is of the other kind.
    pub fn attach(&self, place: impl AsFd) -> io::Result<()> {
        call(Numbers::MoveMount { from: self.0.as_raw_fd(), to: place.as_fd().as_raw_fd() }).map(drop)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// File systems that live as long as they are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// Files in memory, at most a tenth of the host's and one for each 16 KiB of that (tmpfs(5)); the root directory has mode
    /// 0755 and is root's.
    Memory,
    /// Pseudo-terminals of its own (devpts(5)), at most 64: the host has a few thousand for everybody (`kernel.pty.max`).
    Terminals,
}

/// Mounts a new file system at `path`.
///
/// # Errors
/// There is no directory at `path`, or the kernel lacks the file system.
pub fn fresh(kind: Fresh, path: &Path, attributes: Attributes) -> io::Result<()> {
    let (name, options) = match kind {
        Fresh::Memory => ("tmpfs", format!("mode=0755,size=10%,nr_inodes={}", most_files()?)),
        Fresh::Terminals => ("devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5,max=64".to_owned()),
    };
    Ok(mount(Some(name), path, Some(name), attributes.flags(), Some(options.as_str()))?)
}

/// How many files there may be in memory: one for each 16 KiB of a tenth of it, at least 1024. The kernel's own measure is one for
/// each 8 KiB of all memory, of which each takes one that no limit of size counts.
fn most_files() -> io::Result<u64> {
    let pages = sysconf(SysconfVar::_PHYS_PAGES)?.unwrap_or_default();
    let size = sysconf(SysconfVar::PAGE_SIZE)?.unwrap_or_default();
    let bytes = u64::try_from(pages.saturating_mul(size)).unwrap_or_default();
    Ok((bytes / 10 / (16 << 10)).max(1024))
}

#[derive(Clone, Copy)]
struct Change {
    propagation: libc::c_ulong,
    set: u64,
}

fn set_attributes(from: i32, path: &std::ffi::CStr, flags: i32, change: Change) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: 0,
        #[expect(clippy::useless_conversion, reason = "the constants are narrower on 32-bit machines")]
        propagation: change.propagation.into(),
        userns_fd: 0,
    };
    // SAFETY: the path ends with NUL, the structure has the size that is passed, both outlive the call, and the kernel
    // only reads them.
    let result = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, from, path.as_ptr(), flags, &raw const attributes, size)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{process, user};

    #[test]
    fn what_is_restricted_here_is_so_nowhere_else() {
        if !user::tests::has_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let here = || attributes(Path::new("/")).unwrap();
        let text = process::tests::in_a_process("mounts", || {
            leave().unwrap();
            let wanted = Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES);
            restrict(Path::new("/"), wanted).unwrap();
            format!("{} {}", here().contain(wanted), std::fs::create_dir(dir.path().join("new")).is_err())
        });
        assert_eq!(text, "true true");
        assert!(!here().contain(Attributes::READ_ONLY));
        std::fs::create_dir(dir.path().join("new")).unwrap();
    }
}
