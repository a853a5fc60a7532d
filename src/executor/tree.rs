//! What a confined script sees of the file system.
//!
//! # The order of steps
//!
//! All in the mount namespace of the run, which is private by then:
//!
//! 1. copies are taken, while nothing is covered: of each writable path, which must exist and in which no component may
//!    be a symbolic link; of what else has to stay (see below);
//! 2. a file system in memory is made ready: `/dev`, `/tmp` and `/run` for a run with `writable`, and something empty,
//!    closed and read-only to hide things behind; it is attached nowhere as a whole;
//! 3. the whole tree gets its properties in one call: no device nodes, no set-user-ID programs (unless the profile says
//!    `no_new_privileges = no`), and for a run with `writable`, read-only;
//! 4. the private places are attached, `/dev/pts` and `/proc` are mounted new (`/proc` read-only), the copies go back;
//! 5. the agent's own places are hidden, last, so that nothing lies over them;
//! 6. the properties are read back.
//!
//! # What a read-only tree does not stop, and what does
//!
//! | way around | guard |
//! |---|---|
//! | device nodes can be written on a read-only mount | `/dev` is private, and no other mount has devices |
//! | so can sockets and FIFOs | `/run`, `/tmp` and `/dev` are private: the sockets of the host's services are not there |
//! | descriptors, also of directories, opened before | all but the three standard ones are closed; those are pipes and files |
//! | `/proc/PID/root` of other processes | a process namespace: there are no other processes |
//! | a fresh `/proc` is writable | it is mounted read-only |
//! | user namespaces | the filter of system calls |
//! | making it writable again with `CAP_SYS_ADMIN` | such a profile must say `allow_dangerous_caps`; the filter, Landlock |
//! | renaming a directory above a hidden one | no writable path may hold, be or lie in one of the agent's own |
//!
//! What belongs to a private place and is wanted nevertheless is named in `writable`: `/tmp/shared`, `/run/dbus`,
//! `/dev/ttyUSB0`. Two things stay without being named: the file that `/etc/resolv.conf` leads to, which may be in
//! `/run`; and the script, which may be in `/tmp`. The log's socket `/dev/log` stays too.
//!
//! A profile without `writable` leaves the tree as writable as its account may write, with the host's `/dev`, `/run` and
//! `/tmp`. `/proc`, and the control groups of a run that is limited by one, are read-only there as well.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use crate::sys::file::{Identity, make_device};
use crate::sys::mount::{self, Attributes, Fresh, Tree};
use crate::sys::process::{self, Fault};

/// The directories that are a run's own if its profile has `writable`.
pub(super) const PRIVATE: [&str; 3] = ["/dev", "/run", "/tmp"];

/// What a private `/dev` holds, with the numbers of `Documentation/admin-guide/devices.txt`.
pub(super) const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Where the new file system in memory is put together, before anything of it is attached. It stays there, under the new
/// `/proc`: to unmount it would mean to wait for every processor of the host.
const WORKSHOP: &str = "/proc";

/// What nothing can be done with.
const CLOSED: Attributes =
    Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES).and(Attributes::NO_EXEC);

/// A tree and the place where it goes.
#[derive(Debug)]
struct Piece {
    place: PathBuf,
    tree: Tree,
    directory: bool,
}

/// Builds it. `groups` is where control groups are mounted, if the run is in one.
pub(super) fn build(confinement: &Confinement, program: &Path, groups: Option<&Path>) -> Result<(), Fault> {
    process::set_umask(0);
    let suid = if confinement.profile().no_new_privileges { Attributes::NO_SUID } else { Attributes::NONE };
    let basic = suid.and(Attributes::NO_DEVICES);
    let (whole, copies) = match confinement.writable() {
        Some(writable) => {
            let mut copies = writable_copies(writable, basic)?;
            copies.extend(useful_copies(writable, program)?);
            (basic.and(Attributes::READ_ONLY), copies)
        }
        None => (basic, vec![copy(Path::new("/dev"), suid, "private-places")?]),
    };
    let Made { private, hiding, closed } = make(confinement, basic)?;
    mount::restrict(Path::new("/"), whole).map_err(Fault::confining("read-only"))?;
    private.into_iter().try_for_each(|piece| attach(piece, "private-places"))?;
    mount::fresh(Fresh::Processes, Path::new("/proc"), CLOSED).map_err(Fault::confining("proc"))?;
    copies.into_iter().try_for_each(|piece| attach(piece, "writable"))?;
    if let Some(groups) = groups.filter(|_| confinement.writable().is_none()) {
        mount::restrict(groups, Attributes::READ_ONLY).map_err(Fault::confining("control-group"))?;
    }
    hide(hiding, &closed)?;
    prove(Path::new("/"), whole)?;
    prove(Path::new("/proc"), CLOSED)
}

/// The writable paths, parents before what lies below them.
fn writable_copies(writable: &[PathBuf], basic: Attributes) -> Result<Vec<Piece>, Fault> {
    let mut paths: Vec<&PathBuf> = writable.iter().collect();
    paths.sort();
    paths.dedup();
    // A device that is named is meant to be one.
    let attributes = |path: &Path| if path.starts_with("/dev") { Attributes::NONE } else { basic };
    paths.into_iter().map(|path| copy(path, attributes(path), "writable")).collect()
}

/// What would be missed in the private places: the script, and the name servers.
fn useful_copies(writable: &[PathBuf], program: &Path) -> Result<Vec<Piece>, Fault> {
    // Where no component is a link, the file is where it says, and stays.
    let resolver = Path::new("/etc/resolv.conf");
    let elsewhere = mount::open_exactly(resolver).is_err();
    let resolver = if elsewhere { fs::canonicalize(resolver).ok() } else { None };
    let wanted = [Some(program.to_owned()), resolver].into_iter().flatten();
    let covered = |path: &PathBuf| {
        PRIVATE.iter().any(|above| path.starts_with(above)) && !writable.iter().any(|above| path.starts_with(above))
    };
    // An exec of what is not there says so itself.
    let opened = wanted.filter(covered).filter_map(|place| Some((mount::open(&place).ok()?, place)));
    let piece = |(opened, place): (OwnedFd, PathBuf)| {
        let attributes = Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES);
        piece_of(&opened, place, attributes).map_err(Fault::confining("private-places"))
    };
    opened.map(piece).collect()
}

fn copy(place: &Path, attributes: Attributes, step: &'static str) -> Result<Piece, Fault> {
    let piece = mount::open_exactly(place).and_then(|opened| piece_of(&opened, place.to_owned(), attributes));
    piece.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(mount::LINK) => " is reached through a symbolic link (write the path that it leads to)",
            _ => "",
        };
        Fault::confining(step)(error).about(format_args!("{}{why}", place.display()))
    })
}

fn piece_of(opened: impl AsFd, place: PathBuf, attributes: Attributes) -> io::Result<Piece> {
    let directory = mount::is_directory(&opened)?;
    let tree = Tree::copy(opened)?;
    tree.restrict(attributes)?;
    Ok(Piece { place, tree, directory })
}

/// What comes out of the workshop.
struct Made {
    private: Vec<Piece>,
    hiding: Vec<Piece>,
    /// What others are hidden behind.
    closed: Vec<Identity>,
}

fn make(confinement: &Confinement, basic: Attributes) -> Result<Made, Fault> {
    let made = || -> io::Result<Made> {
        let workshop = Path::new(WORKSHOP);
        mount::fresh(Fresh::Memory, workshop, Attributes::NO_SUID)?;
        let (hiding, closed) = hiding_places(workshop, confinement.hidden())?;
        let private = if confinement.writable().is_some() { private_places(workshop, basic)? } else { Vec::new() };
        Ok(Made { private, hiding, closed })
    };
    made().map_err(Fault::confining("private-places"))
}

/// A closed directory for each directory, a closed file for each file; and what they are.
fn hiding_places(workshop: &Path, hidden: &[PathBuf]) -> io::Result<(Vec<Piece>, Vec<Identity>)> {
    let (mut pieces, mut closed) = (Vec::new(), Vec::new());
    for directories in [true, false] {
        let of_kind = |place: &&PathBuf| fs::symlink_metadata(place).is_ok_and(|found| found.is_dir() == directories);
        let mut places = hidden.iter().filter(of_kind).peekable();
        if places.peek().is_none() {
            continue;
        }
        let behind = workshop.join(if directories { "none" } else { "void" });
        if directories {
            make_directory(&behind, 0)?;
        } else {
            File::create_new(&behind)?.set_permissions(Permissions::from_mode(0o0))?;
        }
        let opened = mount::open_exactly(&behind)?;
        for place in places {
            pieces.push(piece_of(&opened, place.clone(), CLOSED)?);
        }
        closed.push(Identity::of(&behind)?);
    }
    Ok((pieces, closed))
}

fn private_places(workshop: &Path, basic: Attributes) -> io::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for (place, mode) in PRIVATE.into_iter().zip([0o755, 0o755, 0o1777]) {
        // A host without the place needs no private one.
        if !Path::new(place).is_dir() {
            continue;
        }
        let made = workshop.join(place.trim_start_matches('/'));
        make_directory(&made, mode)?;
        let is_dev = place == "/dev";
        if is_dev {
            fill_dev(&made)?;
        }
        let attributes = if is_dev { Attributes::NO_SUID } else { basic };
        pieces.push(piece_of(mount::open_exactly(&made)?, PathBuf::from(place), attributes)?);
    }
    Ok(pieces)
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
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        symlink(target, dev.join(name))?;
    }
    make_directory(&dev.join("shm"), 0o1777)?;
    make_directory(&dev.join("pts"), 0o755)?;
    mount::fresh(Fresh::Terminals, &dev.join("pts"), Attributes::NO_SUID.and(Attributes::NO_EXEC))?;
    let log = Path::new("/dev/log");
    if log.exists() { lend(log, &dev.join("log")) } else { Ok(()) }
}

/// Lets a file of the host's show at `place`.
fn lend(file: &Path, place: &Path) -> io::Result<()> {
    File::create_new(place)?;
    Tree::copy(mount::open(file)?)?.attach(mount::open_exactly(place)?)
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// Puts a piece in its place, which in a private directory may have to be made first.
fn attach(piece: Piece, step: &'static str) -> Result<(), Fault> {
    let Piece { place, tree, directory } = piece;
    let attached = || {
        let at = match mount::open_exactly(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_place(&place, directory)?;
                mount::open_exactly(&place)?
            }
            found => found?,
        };
        tree.attach(at)
    };
    attached().map_err(|error| Fault::confining(step)(error).about(place.display()))
}

/// Only a private place can be written to by then.
fn make_place(place: &Path, directory: bool) -> io::Result<()> {
    let above = if directory { Some(place) } else { place.parent() };
    if let Some(above) = above {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    if directory { Ok(()) } else { File::create_new(place).map(drop) }
}

/// Hides what shows; what lies in a private directory does not.
fn hide(pieces: Vec<Piece>, closed: &[Identity]) -> Result<(), Fault> {
    for piece in pieces.into_iter().filter(|piece| fs::symlink_metadata(&piece.place).is_ok()) {
        let place = piece.place.clone();
        attach(piece, "hidden")?;
        if !Identity::of(&place).is_ok_and(|found| closed.contains(&found)) {
            return Err(Fault::unproven("hidden", format_args!("{} shows nevertheless", place.display())));
        }
    }
    Ok(())
}

fn prove(path: &Path, attributes: Attributes) -> Result<(), Fault> {
    let fault = |error| Fault::confining("read-only")(error).about(path.display());
    if mount::attributes(path).map_err(fault)?.contain(attributes) {
        return Ok(());
    }
    Err(Fault::unproven("read-only", format_args!("{} does not have the properties that it was given", path.display())))
}
