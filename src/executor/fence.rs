//! What keeps a run from putting something else where the agent's own files are: to hide a directory is not enough where the
//! one above it can be renamed.
//!
//! The kernel refuses to rename or remove what is a mount point (`EBUSY`, rename(2)), by whatever path that is tried, in the
//! namespace in which it is one. So every directory above a place of the agent's own, and every link on the way to it, is made
//! a mount point in the run's namespace: not where it shows, which would hide what is below, but in a bare copy of the mount
//! that it is in, at a place that nobody can reach (`workshop`). Files that scripts may see and must not change are mounted on
//! themselves, read-only.
//!
//! All of that is the same for every run until something is moved, so that it is made ahead with the rest of the tree.
//! **Invariant:** a tree is used only for a run that finds the same directories, links and files in the same places.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use super::kind::Piece;
use super::workshop::{Blinds, WORKSHOP};
use crate::sys::file::Identity;
use crate::sys::mount::{self, Attributes, Tree};
use crate::sys::mounts::Table;
use crate::sys::process::Fault;

/// What is to stay where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fence {
    /// Directories and links, those above first.
    fixed: Vec<(PathBuf, Identity)>,
    /// Files of a tree that is not read-only as a whole.
    kept: Vec<(PathBuf, Identity)>,
    /// What is hidden.
    hidden: Vec<PathBuf>,
}

impl Fence {
    /// What a run needs now.
    ///
    /// # Errors
    /// Something was moved just now.
    pub(super) fn around(confinement: &Confinement) -> io::Result<Self> {
        let (kept, passed) = (confinement.kept(), confinement.passed());
        let guarded = confinement.hidden().iter().chain(kept).chain(passed);
        let above = guarded.flat_map(|place| place.ancestors().skip(1));
        let all: BTreeSet<&Path> = above.chain(passed.iter().map(PathBuf::as_path)).collect();
        // The same directory may be among them twice, shown by several mounts: as the root of one it cannot be moved, and has to
        // be fixed where it is none.
        let fixed = all.into_iter().filter(|place| place.parent().is_some());
        let fixed = fixed.map(|place| Ok((place.to_owned(), identity_of(place)?)));
        let fixed = fixed.collect::<io::Result<_>>()?;
        let kept = if confinement.writable().is_some() { &[] } else { kept };
        let kept = kept.iter().map(|file| Ok((file.clone(), identity_of(file)?)));
        Ok(Self { fixed, kept: kept.collect::<io::Result<_>>()?, hidden: confinement.hidden().to_vec() })
    }

    /// What it is around.
    pub(super) fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// Puts it up. How many mounts of the workshop it is then.
    ///
    /// **Invariant:** called in the run's namespace, while nothing is covered and the workshop can still be reached.
    pub(super) fn put_up(&self, blinds: &Blinds) -> Result<usize, Fault> {
        let held = fix(&self.fixed, blinds).map_err(Fault::confining("hidden"))?;
        self.kept.iter().try_for_each(|(file, identity)| {
            let fault = |error| Fault::confining("hidden")(error).about(file.display());
            keep(file).map_err(fault)?;
            if Identity::of_itself(file).map_err(fault)? == *identity { Ok(()) } else { Err(fault(moved())) }
        })?;
        Ok(held)
    }

    /// Whether it stands in a namespace whose mounts these are, with so many in the workshop: what is replaced on the host before
    /// somebody is told of changes there is told to nobody.
    pub(super) fn stands(&self, mounts: &Table, held: usize) -> bool {
        mounts.below(&hold()) >= held && self.kept.iter().all(|(file, _)| mounts.covers(file, None))
    }
}

/// Mounts a file or a directory on itself so that it can be read and executed there, and neither written nor replaced.
pub(super) fn keep(place: &Path) -> io::Result<()> {
    let Piece { tree, .. } = Piece::of(mount::open_exactly(place)?, place.to_owned(), Attributes::READ_ONLY)?;
    tree.attach(mount::open_exactly(place)?)
}

/// Copies of single mounts, each with the place of its root.
struct Copies(Vec<(PathBuf, Tree)>);

fn fix(fixed: &[(PathBuf, Identity)], blinds: &Blinds) -> io::Result<usize> {
    let mut copies = Copies(Vec::new());
    // All are found before the first becomes a mount point, which would be in the way to those below.
    let found = fixed.iter().map(|(place, identity)| copies.find(place, *identity)).collect::<io::Result<Vec<_>>>()?;
    copies.attach()?;
    let mut held = copies.0.len();
    for opened in found.into_iter().flatten() {
        let (blind, _) = blinds.of_kind(mount::is_directory(&opened)?)?;
        Tree::copy(blind)?.attach(opened)?;
        held = held.saturating_add(1);
    }
    Ok(held)
}

/// Where single mounts are attached in the workshop.
fn hold() -> PathBuf {
    Path::new(WORKSHOP).join("hold")
}

impl Copies {
    /// Opens a place in a copy of the mount that it is in; nothing if that is the mount's root, which cannot be moved.
    fn find(&mut self, place: &Path, identity: Identity) -> io::Result<Option<OwnedFd>> {
        if self.0.is_empty() {
            self.add(Path::new("/"))?;
        }
        let nearest = self.0.iter().rev().find(|(top, _)| place.starts_with(top));
        let (top, copy) = nearest.ok_or_else(moved)?;
        let within = place.strip_prefix(top).map_err(|_| moved())?;
        let opened = mount::open_within(copy, within);
        if let Ok(opened) = opened.as_ref()
            && Identity::of_opened(opened)? == identity
        {
            return Ok(Some(opened.try_clone()?));
        }
        // Something else is mounted there.
        if Identity::of_opened(self.add(place)?)? == identity { Ok(None) } else { Err(moved()) }
    }

    fn add(&mut self, top: &Path) -> io::Result<&Tree> {
        let copy = Tree::copy_bare(mount::open_exactly(top)?)?;
        self.0.push((top.to_owned(), copy));
        self.0.last().map(|(_, copy)| copy).ok_or_else(moved)
    }

    /// A mount point counts only in a mount that is attached.
    fn attach(&self) -> io::Result<()> {
        let hold = hold();
        DirBuilder::new().create(&hold)?;
        for (number, (_, copy)) in self.0.iter().enumerate() {
            let here = hold.join(number.to_string());
            fs::create_dir(&here)?;
            copy.attach(mount::open_exactly(&here)?)?;
        }
        Ok(())
    }
}

fn identity_of(place: &Path) -> io::Result<Identity> {
    Identity::of_itself(place).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", place.display())))
}

pub(super) fn moved() -> io::Error {
    io::Error::other("it was moved, or a mount was made over it, just now: try again")
}
