//! An init as its monitor knows it: one that is at work on its namespaces, and one that stands by.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use super::init::{self, Wanted};
use super::kind::Kind;
use super::reasons::why;
use super::workshop::Blinds;
use crate::sys::fdpass::{self, Kind as Line};
use crate::sys::locks::Model;
use crate::sys::mount::{Changes, OwnProcesses};
use crate::sys::poll;
use crate::sys::process::{self, Failure, Fork, Pid, Signal};
use crate::sys::spaces::Spaces;
use crate::wire::outcome::Outcome;

/// How long an init may take to make what it makes, while its monitor hears nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest message of an init, in bytes: as a pipe's.
pub(super) const MESSAGE: usize = 4096;

/// An init that may still be at work on its namespaces.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) pid: Pid,
    pub(super) kind: Kind,
    line: OwnedFd,
    children: Option<File>,
}

/// An init that stands by.
#[derive(Debug)]
pub(super) struct Init {
    pub(super) pid: Pid,
    pub(super) kind: Kind,
    pub(super) spaces: Spaces,
    pub(super) blinds: Blinds,
    /// In its namespace of mounts, since it stands by.
    pub(super) changes: Changes,
    line: OwnedFd,
    children: Option<File>,
}

impl Builder {
    pub(super) fn start(processes: &OwnProcesses, wanted: Wanted<'_>) -> io::Result<Self> {
        let (line, theirs) = fdpass::pair(Line::Messages)?;
        let Wanted { kind, ahead, .. } = wanted;
        match processes.fork_into_new()? {
            Fork::Child => init::run(wanted, &theirs),
            Fork::Parent(pid) => {
                if ahead {
                    // Said here: a process that says so of itself keeps its processor until a tick. A saving may fail.
                    drop(process::give_way(pid));
                }
                // Opened now, while nobody waits. A kernel without such lists (CONFIG_PROC_CHILDREN) has init look instead.
                let children = children_of(pid);
                Ok(Self { pid, kind, line, children })
            }
        }
    }

    /// Whether [`Builder::finish`] does not wait.
    pub(super) fn is_ready(&self) -> bool {
        fdpass::has_word(&self.line).unwrap_or(true)
    }

    /// Waits until it stands by. What it has made for other runs too comes along, if it was to do so.
    pub(super) fn finish(self) -> Result<(Init, Option<Model>), (Pid, Outcome)> {
        let Self { pid, kind, line, children } = self;
        let mut buffer = [0; MESSAGE];
        let lost = |error: &io::Error| (pid, fail("init", error.to_string()));
        let [told] = poll::readable([Some(line.as_fd())], Some(PATIENCE)).map_err(|error| lost(&error))?;
        if !told.readable && !told.closed {
            return Err((pid, fail("init", "the namespaces of the run were not ready in time".to_owned())));
        }
        let message = fdpass::receive(&line, &mut buffer, fdpass::MOST).map_err(|error| lost(&error))?;
        let words = buffer.get(..message.size).unwrap_or_default();
        if words == [init::READY] || words == [init::SHARED] {
            let mut each = message.descriptors.into_iter();
            let model = if words == [init::SHARED] { several(&mut each).map(Model::received) } else { None };
            if let Some(changes) = each.next().map(Changes::from)
                && let Some(blinds) = several(&mut each).map(Blinds::received)
                && let Some(spaces) = Spaces::received(each.collect())
            {
                return Ok((Init { pid, kind, spaces, blinds, changes, line, children }, model));
            }
        }
        let outcome = Failure::from_bytes(words).map_or_else(
            || fail("init", "the first process of the run's namespace ended before it was ready".to_owned()),
            |failure| fail(failure.step(), why(&failure)),
        );
        Err((pid, outcome))
    }
}

impl Init {
    /// Whether the list of the kernel's proves that nobody is in its process namespace but itself. **Invariant:** asked once the
    /// script's process, which has its parent outside, is buried: everyone else's line of parents leads to this one.
    pub(super) fn is_alone(&self) -> bool {
        self.children.as_ref().is_some_and(|list| matches!(list.read_at(&mut [0], 0), Ok(0)))
    }

    /// Asks everyone else to end.
    pub(super) fn terminate(&self) {
        process::signal(self.pid, Signal::SIGTERM);
    }

    /// Ends everyone.
    pub(super) fn kill(&self) {
        process::signal(self.pid, Signal::SIGKILL);
    }

    /// Has it end everyone else; it tells when they are gone.
    pub(super) fn bury(&self) {
        // If it has ended, so has everyone.
        drop(fdpass::send_now(&self.line, &[init::BURY]));
    }

    /// Readable when it tells that, or has ended.
    pub(super) fn ear(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Whether it tells that.
    pub(super) fn tells_of_burial(&self) -> bool {
        let mut word = [0];
        fdpass::receive_now(&self.line, &mut word).is_ok_and(|size| size == 1) && word == [init::BURIED]
    }
}

/// The next ones of a list.
fn several<const N: usize>(list: &mut impl Iterator<Item = OwnedFd>) -> Option<[OwnedFd; N]> {
    list.take(N).collect::<Vec<_>>().try_into().ok()
}

/// The kernel's list of the children of a process with one thread.
pub(super) fn children_of(pid: Pid) -> Option<File> {
    File::open(format!("/proc/{pid}/task/{pid}/children")).ok()
}

pub(super) fn fail(step: &str, reason: String) -> Outcome {
    Outcome::NotConfined { step: step.to_owned(), reason }
}
