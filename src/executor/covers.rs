//! Watching over what is covered for a script, while it runs.
//!
//! The kernel takes off what covers a file or directory when somebody on the host removes that or puts another in its place, as
//! an update does (`models`), and the script finds the new one. No mount can be made that outlasts it, so the monitor looks on:
//! the namespace of the run tells when anything was taken off in it, and a run that has lost a cover is ended at once. That is
//! as much as can be done from outside: in the moment until then the script has what was uncovered. What has to be sound
//! lies in a directory of its own, in which files are replaced without anything being taken off (`own`).
//!
//! What is moved away is not told: its cover goes along, as with a private place.
//!
//! The look costs as much as a short script takes to run, so that it comes when most have ended; from then on nothing is asked
//! until the kernel tells.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::confinement::Confinement;
use super::inits::{Init, fail};
use super::workshop::WORKSHOP;
use crate::sys::file::Identity;
use crate::sys::mount::Changes;
use crate::sys::mounts::Table;
use crate::sys::process::Pid;
use crate::wire::outcome::{Outcome, UNCOVERED};

/// When a run is looked at for the first time.
const MOMENT: Duration = Duration::from_millis(3);
/// After so long it is looked at again if that failed: a process that has just ended cannot be looked at, and is buried by then.
const AGAIN: Duration = Duration::from_secs(1);

/// What has to stay covered in a run.
#[derive(Debug)]
pub(super) struct Covers {
    /// Each with the file system that it is covered by, or nothing if it only cannot be written to.
    places: Vec<(PathBuf, Option<Identity>)>,
    leader: Pid,
    state: State,
}

#[derive(Debug)]
enum State {
    /// To be looked at then.
    Due(Instant),
    /// Once in vain, and to be looked at then.
    Failed(Instant),
    /// Whatever is taken off in the run's namespace is told.
    Watched(Changes),
    /// Nothing is to be said any more.
    Done,
}

impl Covers {
    /// Those of a run whose script is this process now; nothing if nobody in it could do anything with what is uncovered. What lies
    /// in a private place does not show there, covered or not.
    pub(super) fn of(confinement: &Confinement, init: &Init, (leader, now): (Pid, Instant)) -> Option<Self> {
        let (_, blind) = init.blinds.of_kind(true).ok()?;
        let private = || init.kind.private_places().map(|(place, _)| place).chain([WORKSHOP]);
        let hidden = if confinement.passes_modes() { confinement.hidden() } else { &[] };
        let hidden = hidden.iter().filter(|place| !private().any(|above| place.starts_with(above)));
        let hidden = hidden.map(|place| (place.clone(), Some(blind)));
        let kept = if confinement.writable().is_some() { confinement.kept() } else { &[] };
        let places: Vec<_> = hidden.chain(kept.iter().map(|place| (place.clone(), None))).collect();
        let first = now.checked_add(MOMENT).filter(|_| !places.is_empty())?;
        Some(Self { places, leader, state: State::Due(first) })
    }

    /// When [`Covers::lost`] is to be asked.
    pub(super) const fn wakes(&self) -> Option<Instant> {
        match self.state {
            State::Due(at) | State::Failed(at) => Some(at),
            State::Watched(_) | State::Done => None,
        }
    }

    /// What tells that it is to be asked, too.
    pub(super) fn changes(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Watched(changes) => Some(changes.as_fd()),
            _ => None,
        }
    }

    /// Looks, if there is a reason to. The outcome of the run, if something is uncovered, or nobody can tell.
    pub(super) fn lost(&mut self, told: bool, now: Instant) -> Option<Outcome> {
        if !told && self.wakes().is_none_or(|at| now < at) {
            return None;
        }
        let seen = match std::mem::replace(&mut self.state, State::Done) {
            State::Watched(changes) => Ok(changes),
            // From now on it is told what happens after this.
            State::Due(_) => {
                let watched = Changes::watch_of(self.leader);
                if watched.is_err() {
                    self.state = State::Failed(now.checked_add(AGAIN)?);
                    return None;
                }
                watched
            }
            State::Failed(_) => Changes::watch_of(self.leader),
            State::Done => return None,
        };
        let table = seen.and_then(|changes| Ok((Table::of(&changes)?, changes)));
        let (table, changes) = match table {
            Ok(seen) => seen,
            Err(error) => return Some(fail(UNCOVERED, format!("the run cannot be watched: {error}"))),
        };
        let uncovered = self.places.iter().find(|(place, from)| !table.covers(place, *from));
        let Some((place, from)) = uncovered else {
            self.state = State::Watched(changes);
            return None;
        };
        let was = if from.is_some() { "hidden from" } else { "read-only for" };
        let place = place.display();
        Some(fail(
            UNCOVERED,
            format!("{place} was removed or replaced while the script ran, and would not have been {was} it any more"),
        ))
    }
}
