//! What the trees of runs are made of: their kinds, and pieces of them.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::confinement::Confinement;
use crate::sys::file::Identity;
use crate::sys::mount::{self, Attributes, Tree};

/// The directories that are a run's own if its profile has `writable`.
pub(super) const PRIVATE: [&str; 3] = ["/dev", "/run", "/tmp"];

/// What the trees of runs have to have in common to be prepared alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// With `writable`: the tree is read-only, and some places are private.
    pub(super) writable: bool,
    /// Set-user-ID programs mean something.
    suid: bool,
    /// With the host's network.
    pub(super) network: bool,
    /// What the host has at each of [`PRIVATE`]: where it has nothing, no private one is needed. A tree was prepared for
    /// these directories, and is for no run any more that finds others there.
    places: [Option<Identity>; 3],
}

impl Kind {
    /// What a run needs now.
    pub(super) fn of(confinement: &Confinement) -> Self {
        let profile = confinement.profile();
        let writable = confinement.writable().is_some();
        let kind = Self { writable, suid: !profile.no_new_privileges, network: profile.network, places: [None; 3] };
        kind.of_now()
    }

    /// What a run of the same profile needs now.
    pub(super) fn of_now(self) -> Self {
        let here = |place| if self.writable { Identity::of_directory(Path::new(place)) } else { None };
        Self { places: PRIVATE.map(here), ..self }
    }

    /// The private places, each with its mode.
    pub(super) fn private_places(self) -> impl Iterator<Item = (&'static str, u32)> {
        let each = PRIVATE.into_iter().zip([0o755, 0o755, 0o1777]).zip(self.places);
        each.filter(|(_, there)| there.is_some()).map(|(place, _)| place)
    }

    /// Whether this is one of them.
    pub(super) fn has_private(self, place: &str) -> bool {
        self.private_places().any(|(private, _)| private == place)
    }

    /// The properties of a device that is one.
    pub(super) const fn lasting(self) -> Attributes {
        if self.suid { Attributes::NONE } else { Attributes::NO_SUID }
    }

    /// The properties of everything.
    pub(super) const fn basic(self) -> Attributes {
        self.lasting().and(Attributes::NO_DEVICES)
    }

    /// The properties of the tree as a whole.
    pub(super) const fn whole(self) -> Attributes {
        if self.writable { self.basic().and(Attributes::READ_ONLY) } else { self.basic() }
    }
}

/// A tree and the place where it goes.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) place: PathBuf,
    pub(super) tree: Tree,
    pub(super) directory: bool,
}

impl Piece {
    /// A copy of what was opened, with properties, for a place.
    pub(super) fn of(opened: impl AsFd, place: PathBuf, attributes: Attributes) -> io::Result<Self> {
        let directory = mount::is_directory(&opened)?;
        let tree = Tree::copy(opened)?;
        tree.restrict(attributes)?;
        Ok(Self { place, tree, directory })
    }
}
