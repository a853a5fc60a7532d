//! What a confined script sees of the file system.
//!
//! # The order of steps
//!
//! What is the same for every run of a kind (`kind`) and fence (`fence`) is made once for several runs ([`share`]), in a
//! namespace of mounts in which no run ever is, by the first process of a run's namespace, which leaves it afterwards:
//!
//! 1. for runs without `writable`, a copy of the host's `/dev` is taken, while nothing is covered;
//! 2. a file system in memory is made ready (`workshop`) with something empty, closed and read-only to hide things behind; it
//!    is attached nowhere that anybody could reach. The directories and links that lead to the agent's own places are made
//!    unmovable (`fence`);
//! 3. the whole tree gets its properties in one call: no device nodes, no set-user-ID programs (unless the profile says
//!    `no_new_privileges = no`), and for runs with `writable`, read-only;
//! 4. `/proc` and the places that will be private are covered, and the agent's own places hidden.
//!
//! For each run ([`prepare`]), by the first process of its namespace and often before there is an order:
//!
//! 5. all of that is copied, and the kernel locks each mount of the copy to its place (`sys::locks`). What is mounted over it
//!    from now on is not locked, and covers nothing but what is closed;
//! 6. private `/dev`, `/tmp` and `/run` for a run with `writable`, `/dev/pts` and a new `/proc`, which is read-only.
//!
//! What the order and its profile say is done by the script's process. Still in the host's mount namespace ([`take`]):
//!
//! 7. copies are taken, each with its properties and private: of each writable path, which must exist and in which no
//!    component may be a symbolic link; of what else has to stay (see below). They are of the moment of the order, however
//!    long ago the rest was made.
//!
//! Then, in the run's ([`complete`]):
//!
//! 8. the private places are seen to be private still: the host may have renamed what they lie over, and they went with it. The
//!    copies go to their places, and what is not to be written in them is kept (`own`); for a run without `writable`, the
//!    control groups become read-only;
//! 9. each of the agent's own places is seen to be hidden still, and one that came since is hidden: last, so that nothing lies
//!    over them. If anything was kept or hidden now, or if the script may mount, all is locked once more;
//! 10. the properties are read back.
//!
//! **Invariant:** what was made before the order is used only while the host's table of mounts is the one that it was made from
//! (`household`), and while the host has the same directories below its private places. Files that were made meanwhile show in
//! it: its mounts are the host's file systems themselves.
//!
//! # What a read-only tree does not stop, and what does
//!
//! | way around | guard |
//! |---|---|
//! | device nodes can be written on a read-only mount | `/dev` is private, and no other mount has devices |
//! | so can sockets and FIFOs | `/run`, `/tmp` and `/dev` are private: the sockets of the host's services are not there |
//! | descriptors, also of directories, opened before | all but the three standard ones are closed; those are pipes and files |
//! | descriptors of directories, handed on by one run to another that outlives it | mounts are locked: what is covered stays so |
//! | `/proc/PID/root` of other processes | a process namespace: there are no other processes |
//! | a fresh `/proc` is writable | it is mounted read-only |
//! | user namespaces | the filter of system calls |
//! | making it writable again with `CAP_SYS_ADMIN` | such a profile must say `allow_dangerous_caps`; the filter, Landlock |
//! | renaming a directory above a hidden one | none can be renamed (`fence`); no writable path may hold, be or lie in one |
//! | another mount of what is hidden | it is hidden wherever it shows (`own`); no writable path may reach it there either |
//! | the script of a stronger profile in a writable path | its directory is mounted on itself read-only (`own`) |
//! | what the host replaces while a script runs, and is not covered then | the monitor looks on (`covers`) |
//! | a set-user-ID program that is left behind | the filter of system calls, which `syscalls = off` does not lift |
//!
//! What belongs to a private place and is wanted nevertheless is named in `writable`: `/tmp/shared`, `/run/dbus`,
//! `/dev/ttyUSB0`. Two things stay without being named: the file that `/etc/resolv.conf` leads to, which may be in
//! `/run`; and the script, which may be in `/tmp`. The log's socket `/dev/log` stays too.
//!
//! A profile without `writable` leaves the tree as writable as its account may write, with the host's `/dev`, `/run` and
//! `/tmp`. `/proc`, and the control groups of a run that is limited by one, are read-only there as well.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::fence::{self, Fence};
use super::kind::{Kind, PRIVATE, Piece};
use super::offer::{NO_USER_NAMESPACE, USER_NAMESPACES};
use super::workshop::{self, Blinds, Shared};
use crate::sys::file::Identity;
use crate::sys::locks::{Locked, Model};
use crate::sys::mount::{self, Attributes, Tree};
use crate::sys::mounts::Table;
use crate::sys::process::Fault;
use crate::sys::spaces::Listing;

/// Where the processes of a run show.
const PROCESSES: &str = workshop::WORKSHOP;

/// What nothing can be done with.
const CLOSED: Attributes =
    Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES).and(Attributes::NO_EXEC);

/// Steps 1 to 4: what all runs of a kind share. `ahead` is when nobody waits for it.
///
/// **Invariant:** called in a namespace of mounts of its own, of which this becomes all that there is.
pub(super) fn share(kind: Kind, fence: &Fence, (ahead, listing): (bool, &Listing)) -> Result<Model, Fault> {
    let private = Fault::confining("private-places");
    if ahead {
        mount::take_off(Path::new(PROCESSES)).map_err(&private)?;
    }
    let devices = if kind.writable { None } else { Some(copy(Path::new("/dev"), kind.lasting(), "private-places")?) };
    let Shared { blinds, workshop, lent } = workshop::share(kind).map_err(&private)?;
    let held = fence.put_up(&blinds)?;
    mount::restrict(Path::new("/"), kind.whole()).map_err(Fault::confining("read-only"))?;
    devices.into_iter().chain(lent).try_for_each(|piece| attach(&piece, "private-places"))?;
    for (place, _) in kind.private_places() {
        cover(Path::new(place), &blinds, ahead)?;
    }
    fence.hidden().iter().try_for_each(|place| hide(place, &blinds).map(drop))?;
    cover(Path::new(PROCESSES), &blinds, false)?;
    let model = Model::here(workshop, listing).map_err(locking)?;
    let mounts = Table::of(model.changes()).map_err(Fault::confining("hidden"))?;
    if fence.stands(&mounts, held) { Ok(model) } else { Err(Fault::confining("hidden")(fence::moved())) }
}

/// Steps 5 and 6: the tree of one run, in which this process is then, and what to hide things behind.
pub(super) fn prepare(kind: Kind, model: &Model, listing: &Listing) -> Result<(Locked, Blinds), Fault> {
    let processes = Tree::of_processes(CLOSED).map_err(Fault::confining("proc"))?;
    let tree = model.copy(listing, Path::new(PROCESSES)).map_err(locking)?;
    tree.enter().map_err(locking)?;
    let made = Blinds::in_workshop(tree.directory.try_clone().map_err(Fault::confining("private-places"))?)
        .and_then(|mut blinds| Ok((workshop::make(kind, &mut blinds)?, blinds)));
    let (private, blinds) = made.map_err(Fault::confining("private-places"))?;
    private.into_iter().try_for_each(|piece| attach(&piece, "private-places"))?;
    let place = mount::open_exactly(Path::new(PROCESSES)).map_err(Fault::confining("proc"))?;
    processes.attach(place).map_err(Fault::confining("proc"))?;
    Ok((tree, blinds))
}

/// Puts something closed over a directory that no run of the kind sees. What is mounted there is taken off where there is time
/// for it, so that it need not be copied for each run.
fn cover(place: &Path, blinds: &Blinds, ahead: bool) -> Result<(), Fault> {
    let covered = || {
        if ahead {
            mount::take_off(place)?;
        }
        let (blind, _) = blinds.of_kind(true)?;
        put(&Piece::of(blind, place.to_owned(), CLOSED)?)
    };
    covered().map_err(|error| Fault::confining("private-places")(error).about(place.display()))
}

/// Step 7.
pub(super) fn take(confinement: &Confinement, program: &Path, kind: Kind) -> Result<Vec<Piece>, Fault> {
    let Some(writable) = confinement.writable() else { return Ok(Vec::new()) };
    let mut copies = writable_copies(writable, kind.basic())?;
    copies.extend(useful_copies(writable, program)?);
    Ok(copies)
}

/// Steps 8 to 10. `groups` is where control groups are mounted, if the run is in one.
pub(super) fn complete(
    confinement: &Confinement,
    copies: Vec<Piece>,
    (kind, blinds): (Kind, &Blinds),
    groups: Option<&Path>,
) -> Result<(), Fault> {
    kind.private_places().try_for_each(|(place, _)| prove_private(Path::new(place), blinds))?;
    // Who may mount could open what is closed by a property alone, such as `/proc`.
    let mut loose = attach_and_keep(copies, confinement.kept())? || confinement.may_mount();
    if let Some(groups) = groups.filter(|_| !kind.writable) {
        mount::restrict(groups, Attributes::READ_ONLY).map_err(Fault::confining("control-group"))?;
    }
    for place in confinement.hidden() {
        loose |= hide(place, blinds)?;
    }
    if loose {
        lock_all().map_err(locking)?;
    }
    prove(Path::new("/"), kind.whole())?;
    prove(Path::new(PROCESSES), CLOSED)
}

/// Puts copies in their places, and what is to be kept in them read-only over itself, with all that is below it; those above
/// first, so that what is named below something that is kept can be written to. Whether there was anything to keep: everywhere
/// else the tree is read-only, or nobody's but the run's.
fn attach_and_keep(copies: Vec<Piece>, kept: &[PathBuf]) -> Result<bool, Fault> {
    let open: Vec<PathBuf> = copies.iter().map(|copy| copy.place.clone()).collect();
    let kept = kept.iter().filter(|place| open.iter().any(|above| place.starts_with(above)));
    let kept = kept.map(|place| (place.clone(), None)).collect::<Vec<_>>();
    let any = !kept.is_empty();
    let mut all: Vec<_> = copies.into_iter().map(|copy| (copy.place.clone(), Some(copy))).chain(kept).collect();
    // At one place, what keeps it comes last.
    all.sort_by(|(place, copy), (other, beside)| place.cmp(other).then(copy.is_none().cmp(&beside.is_none())));
    for (place, copy) in all {
        match copy {
            Some(copy) => attach(&copy, "writable")?,
            None => fence::keep(&place).map_err(|error| Fault::confining("writable")(error).about(place.display()))?,
        }
    }
    Ok(any)
}

/// Locks what was put over the tree of the run since.
fn lock_all() -> io::Result<()> {
    let (root, listing) = (mount::open_exactly(Path::new("/"))?, Listing::open()?);
    Model::here(root, &listing)?.copy(&listing, Path::new(PROCESSES))?.enter()
}

fn locking(error: io::Error) -> Fault {
    let kept = error.kind() == io::ErrorKind::PermissionDenied;
    Fault::confining("locked")(error).about(if kept { NO_USER_NAMESPACE } else { USER_NAMESPACES })
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

/// What would be missed in the private places: the script, the name servers, and the log.
fn useful_copies(writable: &[PathBuf], program: &Path) -> Result<Vec<Piece>, Fault> {
    // Where no component is a link, the file is where it says, and stays.
    let resolver = Path::new("/etc/resolv.conf");
    let elsewhere = mount::open_exactly(resolver).is_err();
    let resolver = if elsewhere { fs::canonicalize(resolver).ok() } else { None };
    let wanted = [Some(program.to_owned()), resolver, Some(PathBuf::from("/dev/log"))].into_iter().flatten();
    let covered = |path: &PathBuf| {
        PRIVATE.iter().any(|above| path.starts_with(above)) && !writable.iter().any(|above| path.starts_with(above))
    };
    // An exec of what is not there says so itself.
    let opened = wanted.filter(covered).filter_map(|place| Some((mount::open(&place).ok()?, place)));
    let piece = |(opened, place): (OwnedFd, PathBuf)| {
        let attributes = Attributes::READ_ONLY.and(Attributes::NO_SUID).and(Attributes::NO_DEVICES);
        Piece::of(&opened, place, attributes).map_err(Fault::confining("private-places"))
    };
    opened.map(piece).collect()
}

fn copy(place: &Path, attributes: Attributes, step: &'static str) -> Result<Piece, Fault> {
    let piece = mount::open_exactly(place).and_then(|opened| Piece::of(&opened, place.to_owned(), attributes));
    piece.map_err(|error| {
        let why = match error.raw_os_error() {
            Some(mount::LINK) => " is reached through a symbolic link (write the path that it leads to)",
            _ => "",
        };
        Fault::confining(step)(error).about(format_args!("{}{why}", place.display()))
    })
}

fn attach(piece: &Piece, step: &'static str) -> Result<(), Fault> {
    put(piece).map_err(|error| Fault::confining(step)(error).about(piece.place.display()))
}

/// Puts a piece in its place, which in a private directory may have to be made first.
fn put(Piece { place, tree, directory }: &Piece) -> io::Result<()> {
    let at = match mount::open_exactly(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_place(place, *directory)?;
            mount::open_exactly(place)?
        }
        found => found?,
    };
    tree.attach(at)
}

/// Only a private place can be written to by then.
fn make_place(place: &Path, directory: bool) -> io::Result<()> {
    let above = if directory { Some(place) } else { place.parent() };
    if let Some(above) = above {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    if directory { Ok(()) } else { File::create_new(place).map(drop) }
}

/// Hides what shows; what lies in a private directory does not. Whether that was not done yet.
fn hide(place: &Path, blinds: &Blinds) -> Result<bool, Fault> {
    let fault = |error| Fault::confining("hidden")(error).about(place.display());
    let found = match fs::symlink_metadata(place) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        found => found.map_err(fault)?,
    };
    let (blind, closed) = blinds.of_kind(found.is_dir()).map_err(fault)?;
    let is_hidden = || Identity::of(place).is_ok_and(|found| found == closed);
    if is_hidden() {
        return Ok(false);
    }
    attach(&Piece::of(blind, place.to_owned(), CLOSED).map_err(fault)?, "hidden")?;
    if is_hidden() {
        return Ok(true);
    }
    Err(Fault::unproven("hidden", format_args!("{} shows nevertheless", place.display())))
}

fn prove_private(place: &Path, blinds: &Blinds) -> Result<(), Fault> {
    let fault = |error| Fault::confining("private-places")(error).about(place.display());
    if blinds.are_beside(place).map_err(fault)? {
        return Ok(());
    }
    Err(Fault::unproven("private-places", format_args!("{} is not the run's own", place.display())))
}

fn prove(path: &Path, attributes: Attributes) -> Result<(), Fault> {
    let fault = |error| Fault::confining("read-only")(error).about(path.display());
    if mount::attributes(path).map_err(fault)?.contain(attributes) {
        return Ok(());
    }
    Err(Fault::unproven("read-only", format_args!("{} does not have the properties that it was given", path.display())))
}
