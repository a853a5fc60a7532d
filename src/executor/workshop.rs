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

/// Where the file system is put together, before anything of it is attached. It stays there, under the new `/proc`: to
/// unmount it would mean to wait for every processor of the host.
pub(super) const WORKSHOP: &str = "/proc";

/// What a directory and a file are hidden behind.
const NONE: &str = "none";
const VOID: &str = "void";

/// Something closed of each kind.
#[derive(Debug)]
pub(super) struct Blinds {
    directory: OwnedFd,
    file: OwnedFd,
}

impl Blinds {
    /// To be sent to another process, which puts them together again with [`Blinds::received`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.directory.as_fd(), self.file.as_fd()]
    }

    /// What another process has sent.
    pub(super) fn received([directory, file]: [OwnedFd; 2]) -> Self {
        Self { directory, file }
    }

    /// Those in an opened workshop.
    pub(super) fn in_workshop(workshop: &OwnedFd) -> io::Result<Self> {
        let open = |name: &str| mount::open_within(workshop, Path::new(name));
        Ok(Self { directory: open(NONE)?, file: open(VOID)? })
    }

    /// Whether what shows at `place` comes from this workshop.
    pub(super) fn are_beside(&self, place: &Path) -> io::Result<bool> {
        Ok(Identity::of(place)?.is_beside(&Identity::of_opened(&self.directory)?))
    }

    /// The one to hide a directory or a file behind, and what it is.
    pub(super) fn of_kind(&self, directory: bool) -> io::Result<(&OwnedFd, Identity)> {
        let blind = if directory { &self.directory } else { &self.file };
        Ok((blind, Identity::of_opened(blind)?))
    }
}

/// What comes out of the workshop.
pub(super) struct Made {
    pub(super) private: Vec<Piece>,
    pub(super) blinds: Blinds,
    pub(super) workshop: OwnedFd,
}

/// Makes it, while nothing is covered yet.
pub(super) fn make(kind: Kind) -> io::Result<Made> {
    let workshop = Path::new(WORKSHOP);
    mount::fresh(Fresh::Memory, workshop, Attributes::NO_SUID)?;
    make_directory(&workshop.join(NONE), 0)?;
    File::create_new(workshop.join(VOID))?.set_permissions(Permissions::from_mode(0o0))?;
    let opened = mount::open_exactly(workshop)?;
    let blinds = Blinds::in_workshop(&opened)?;
    let private = kind.private_places().map(|(place, mode)| private_place(workshop, (place, mode), kind));
    Ok(Made { private: private.collect::<io::Result<_>>()?, blinds, workshop: opened })
}

fn private_place(workshop: &Path, (place, mode): (&str, u32), kind: Kind) -> io::Result<Piece> {
    let here = workshop.join(place.trim_start_matches('/'));
    make_directory(&here, mode)?;
    let is_dev = place == "/dev";
    if is_dev {
        fill_dev(&here)?;
    }
    let attributes = if is_dev { Attributes::NO_SUID } else { kind.basic() };
    Piece::of(mount::open_exactly(&here)?, PathBuf::from(place), attributes)
}

fn fill_dev(dev: &Path) -> io::Result<()> {
    for (name, major, minor) in DEVICES {
        let made = dev.join(name);
        match make_device(&made, major, minor, 0o666) {
            // Without CAP_MKNOD, as in some containers: the host's own.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                lend(&Path::new("/dev").join(name), &made)?;
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

/// Lets a file of the host's show at `place`.
fn lend(file: &Path, place: &Path) -> io::Result<()> {
    File::create_new(place)?;
    Tree::copy(mount::open(file)?)?.attach(mount::open_exactly(place)?)
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}
