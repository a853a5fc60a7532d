//! What the runs of each kind and fence share, as a monitor keeps it; and whether it is what it was.
//!
//! The kernel takes off what is mounted on a file, link or directory when that is removed or replaced, in every namespace of
//! mounts but that of whoever does it (unlink(2), rename(2)). The host's own table tells nothing of it, and where the same file
//! is put back in its place, or one that gets the same inode, nothing else does: so each namespace that is kept for later tells
//! by itself whether anything was mounted or taken off in it since it was made.

use std::rc::Rc;

use super::fence::Fence;
use super::kind::Kind;
use crate::sys::locks::Model;
use crate::sys::mount::Changes;

/// For so many kinds of runs a monitor keeps what those share.
const KINDS: usize = 4;

/// What runs of one kind and fence share.
#[derive(Debug)]
struct Shared {
    model: Model,
    kind: Kind,
    fence: Rc<Fence>,
}

/// Of several kinds, the latest first.
#[derive(Debug, Default)]
pub(super) struct Models(Vec<Shared>);

impl Models {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// One more.
    pub(super) fn add(&mut self, model: Model, kind: Kind, fence: Rc<Fence>) {
        self.0.truncate(KINDS - 1);
        self.0.insert(0, Shared { model, kind, fence });
    }

    /// That of this kind and fence.
    pub(super) fn of(&self, kind: Kind, fence: &Fence) -> Option<&Model> {
        self.place(kind, fence).and_then(|at| self.0.get(at)).map(|shared| &shared.model)
    }

    fn place(&self, kind: Kind, fence: &Fence) -> Option<usize> {
        self.0.iter().position(|shared| shared.kind == kind && *shared.fence == *fence)
    }

    /// Whether an init of this kind and fence, in whose namespace those are the changes, has everything that was mounted for it.
    /// Else what it was made from is given up too, since nobody can tell which of both has lost something first.
    ///
    /// **Invariant:** asked after it was made: what its model had lost by then, it never had.
    pub(super) fn is_whole(&mut self, changes: &Changes, kind: Kind, fence: &Fence) -> bool {
        let at = self.place(kind, fence);
        let lost = match at.and_then(|at| self.0.get(at)) {
            Some(shared) => Changes::happened_in(changes, shared.model.changes()),
            None => changes.happened(),
        };
        if matches!(lost, Ok(false)) {
            return true;
        }
        at.map(|at| self.0.remove(at));
        false
    }
}
