//! The file system in memory that a run's private places are made of, and what others are hidden behind.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::kind::{Kind, Piece};
use crate::sys::file::{Identity, make_device};
use crate::sys::mount::{self, Attributes, Fresh, Tree};

/// What a private `/dev` holds, with the numbers of `Documentation/admin-guide/devices.txt`.
pub(super) const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The links in it.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The directories in it, each with its mode: the second one is mounted over.
const DIRECTORIES: [(&str, u32); 2] = [("shm", 0o1777), (TERMINALS, 0o755)];
const TERMINALS: &str = "pts";

/// Whether a private `/dev` holds a file or directory of this name.
pub(super) fn has(name: &str) -> bool {
    let devices = DEVICES.iter().map(|(name, _, _)| *name);
    let rest = LINKS.iter().map(|(name, _)| *name).chain(DIRECTORIES.iter().map(|(name, _)| *name));
    devices.chain(rest).any(|other| other == name)
}

/// Where file systems are put together, before anything of them is attached. They stay there, under the new `/proc`: to
/// unmount them would mean to wait for every processor of the host.
pub(super) const WORKSHOP: &str = "/proc";

/// What a directory and a file are hidden behind.
const NONE: &str = "none";
const VOID: &str = "void";
/// Where the host's own devices are lent from.
const LENT: &str = "lent";

/// Something closed of each kind; and what the private places lie in, if there are any.
#[derive(Debug)]
pub(super) struct Blinds {
    directory: OwnedFd,
    file: OwnedFd,
    beside: OwnedFd,
}

impl Blinds {
    /// How many descriptors they are.
    pub(super) const SIZE: usize = 3;

    /// To be sent to another process, which puts them together again with [`Blinds::received`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; Self::SIZE] {
        [&self.directory, &self.file, &self.beside].map(|each| each.as_fd())
    }

    /// What another process has sent.
    pub(super) fn received([directory, file, beside]: [OwnedFd; Self::SIZE]) -> Self {
        Self { directory, file, beside }
    }

    /// Those in an opened workshop.
    pub(super) fn in_workshop(workshop: OwnedFd) -> io::Result<Self> {
        let open = |name: &str| mount::open_within(&workshop, Path::new(name));
        Ok(Self { directory: open(NONE)?, file: open(VOID)?, beside: workshop })
    }

    /// Whether what shows at `place` comes from the workshop of the private places.
    pub(super) fn are_beside(&self, place: &Path) -> io::Result<bool> {
        Ok(Identity::of(place)?.is_beside(&Identity::of_opened(&self.beside)?))
    }

    /// The one to hide a directory or a file behind, and what it is.
    pub(super) fn of_kind(&self, directory: bool) -> io::Result<(&OwnedFd, Identity)> {
        let blind = if directory { &self.directory } else { &self.file };
        Ok((blind, Identity::of_opened(blind)?))
    }
}

/// What comes out of the workshop that all runs of a kind share.
pub(super) struct Shared {
    pub(super) blinds: Blinds,
    pub(super) workshop: OwnedFd,
    /// The host's own devices, for their places.
    pub(super) lent: Vec<Piece>,
}

/// Makes what all runs of a kind share, while nothing is covered yet.
pub(super) fn share(kind: Kind) -> io::Result<Shared> {
    let place = Path::new(WORKSHOP);
    mount::fresh(Fresh::Memory, place, Attributes::NO_SUID)?;
    make_directory(&place.join(NONE), 0)?;
    File::create_new(place.join(VOID))?.set_permissions(Permissions::from_mode(0o0))?;
    let workshop = mount::open_exactly(place)?;
    let blinds = Blinds::in_workshop(workshop.try_clone()?)?;
    let lent = if kind.has_private("/dev") { lend(&place.join(LENT))? } else { Vec::new() };
    Ok(Shared { blinds, workshop, lent })
}

/// Without `CAP_MKNOD`, as in some containers, a run has the host's own devices. They can be written on a read-only mount all the
/// same, and their modes and owners, which are the host's, cannot be changed there.
fn lend(place: &Path) -> io::Result<Vec<Piece>> {
    make_directory(place, 0o755)?;
    let lend = |(name, major, minor): (&str, u64, u64)| {
        let place = place.join(name);
        match make_device(&place, major, minor, 0o666) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                File::create_new(&place)?;
                Piece::of(mount::open(&Path::new("/dev").join(name))?, place, Attributes::READ_ONLY).map(Some)
            }
            made => made.map(|()| None),
        }
    };
    DEVICES.into_iter().filter_map(|device| lend(device).transpose()).collect()
}

/// Makes the private places of one run, and sees to it that they are known by what they lie in.
///
/// **Invariant:** called in the run's own namespace of mounts.
pub(super) fn make(kind: Kind, blinds: &mut Blinds) -> io::Result<Vec<Piece>> {
    if kind.private_places().next().is_none() {
        return Ok(Vec::new());
    }
    let workshop = Path::new(WORKSHOP);
    mount::fresh(Fresh::Memory, workshop, Attributes::NO_SUID)?;
    let shared = std::mem::replace(&mut blinds.beside, mount::open_exactly(workshop)?);
    kind.private_places().map(|(place, mode)| private_place(&shared, (place, mode), kind)).collect()
}

fn private_place(shared: &OwnedFd, (place, mode): (&str, u32), kind: Kind) -> io::Result<Piece> {
    let here = Path::new(WORKSHOP).join(place.trim_start_matches('/'));
    make_directory(&here, mode)?;
    let is_dev = place == "/dev";
    if is_dev {
        fill_dev(&here, shared)?;
    }
    let attributes = if is_dev { Attributes::NO_SUID } else { kind.basic() };
    Piece::of(mount::open_exactly(&here)?, PathBuf::from(place), attributes)
}

fn fill_dev(dev: &Path, shared: &OwnedFd) -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let made = dev.join(name);
        match make_device(&made, major, minor, 0o666) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                File::create_new(&made)?;
                let lent = mount::open_within(shared, &Path::new(LENT).join(name))?;
                Tree::copy(lent)?.attach(mount::open_exactly(&made)?)?;
            }
            result => result?,
        }
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name))?;
    }
    for (name, mode) in DIRECTORIES {
        make_directory(&dev.join(name), mode)?;
    }
    mount::fresh(Fresh::Terminals, &dev.join(TERMINALS), Attributes::NO_SUID.and(Attributes::NO_EXEC))
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}
