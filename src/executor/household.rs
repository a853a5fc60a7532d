//! The inits that a monitor has: the one of its run, those of runs that are over, and a spare one for its next order.
//!
//! To make a process with namespaces and a tree of mounts costs more than to run many a script. What does not depend on the
//! order is made ahead: while a script runs, and while its monitor waits for another order, an init of the same kind stands by
//! in namespaces of its own, with the tree as far as it is the same for all runs of a kind (`tree`). Nobody else has ever been
//! in them, and nobody is but the one run that takes them.
//!
//! What the runs of a kind share of their trees comes along with the first spare, and is kept for those after it.
//!
//! **Invariant:** a spare, or what it shares, is used only
//!
//! - by an order of its own kind, with the same fence (`fence`), for which the host has the same directories below the private
//!   places (`kind`): one that was renamed has taken what covered it along;
//! - if nothing was mounted, unmounted or changed on the host since before it was made. A monitor that waits gives up both
//!   at such a change, so that nothing is kept busy by them;
//! - if nothing was mounted or taken off in its own namespace since it was made (`models`);
//! - if it lives. Without one that can be used, an order has its own made, in the same way.
//!
//! Both end with their monitor, and a spare when it is older than [`AGE`].

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fence::{self, Fence};
use super::init::Wanted;
use super::inits::{Builder, Init, MESSAGE, children_of, fail};
use super::kind::Kind;
use super::models::Models;
use super::reasons::with;
use crate::sys::mount::{Changes, OwnProcesses};
use crate::sys::poll;
use crate::sys::process::{self, Pid, Rest, Signal, Signals};
use crate::sys::shortage;
use crate::wire::outcome::Outcome;

/// How long a spare is kept for an order. A script that takes longer has its monitor make another when it has ended.
const AGE: Duration = Duration::from_secs(2);
#[derive(Debug)]
struct Spare {
    builder: Builder,
    fence: Rc<Fence>,
    until: Instant,
}

/// Everyone whom a monitor that confines has started, but for its run's own two.
///
/// **Invariant:** a monitor that confines has no other children than those: the script's process, the run's init, the inits of
/// runs that are over, which are killed and alone in their namespaces, and a spare.
#[derive(Debug, Default)]
pub(super) struct Household {
    leaving: RefCell<Vec<Pid>>,
    spare: RefCell<Option<Spare>>,
    shared: RefCell<Models>,
    /// Of the last order.
    kind: Cell<Option<Kind>>,
    /// What it was kept from.
    fence: RefCell<Rc<Fence>>,
    changes: Option<Changes>,
    /// The kernel's list of this monitor's children.
    children: Option<File>,
    /// A process that borrowed this one's memory was killed meanwhile.
    spoilt: Cell<bool>,
}

impl Household {
    /// With so many on their way, a monitor waits for one before it goes on. It takes a host that is busy beyond measure.
    const MOST: usize = 4;

    /// One that makes spares, where the host's table of mounts can be watched; or one that makes none.
    pub(super) fn new(spares: bool) -> Self {
        let changes = if spares { Changes::watch().ok() } else { None };
        Self { changes, children: children_of(process::own_id()), ..Self::default() }
    }

    /// Whether there may be a child that this monitor has not started: the script's process can make siblings of its own
    /// (`CLONE_PARENT`, clone(2)), which fall to nobody else. **Invariant:** asked once the script's process is buried.
    pub(super) fn has_strangers(&self, init: Pid) -> bool {
        let mut buffer = [0; MESSAGE];
        let size = self.children.as_ref().and_then(|list| list.read_at(&mut buffer, 0).ok());
        // Without such a list, or with one that is too long, nobody can tell.
        let Some(listed) = size.filter(|size| *size < MESSAGE).and_then(|size| buffer.get(..size)) else { return true };
        let known = |pid: Pid| {
            let spare = self.spare.borrow().as_ref().map(|spare| spare.builder.pid);
            pid == init || spare == Some(pid) || self.leaving.borrow().contains(&pid)
        };
        let listed = String::from_utf8_lossy(listed);
        listed.split_ascii_whitespace().any(|pid| !pid.parse().is_ok_and(|pid| known(Pid::from_raw(pid))))
    }

    /// From now on this monitor's memory is not to be relied on for another order.
    pub(super) fn spoil(&self) {
        self.spoilt.set(true);
    }

    /// Whether it is not.
    pub(super) const fn is_spoilt(&self) -> bool {
        self.spoilt.get()
    }

    /// An init for an order of this kind; whether it was made ahead.
    ///
    /// # Errors
    /// The outcome: which step of making one failed.
    pub(super) fn init(&self, processes: &OwnProcesses, kind: Kind, fence: Fence) -> Result<(Init, bool), Outcome> {
        self.kind.set(Some(kind));
        self.fence.replace(Rc::new(fence));
        self.drop_outdated(Instant::now());
        if let Some(spare) = self.spare.take() {
            let pid = spare.builder.pid;
            let fits = spare.builder.kind == kind && spare.fence == *self.fence.borrow();
            if let Some(init) = self.take_in(spare, fits).filter(|init| self.is_whole(init)) {
                return Ok((init, true));
            }
            self.see_out(pid);
        }
        self.new_init(processes, kind).map(|init| (init, false))
    }

    /// An init for the same order that was not made ahead.
    ///
    /// # Errors
    /// As [`Household::init`].
    pub(super) fn new_init(&self, processes: &OwnProcesses, kind: Kind) -> Result<Init, Outcome> {
        let builder = self
            .build(processes, kind, false)
            .map_err(|error| fail("process-namespace", with(&error, shortage::of_processes(&error))))?;
        let made = builder.finish().map_err(|(pid, outcome)| {
            self.see_out(pid);
            outcome
        });
        let (init, _) = made?;
        if self.is_whole(&init) {
            return Ok(init);
        }
        self.see_out(init.pid);
        Err(fail("hidden", fence::moved().to_string()))
    }

    /// Whether nothing was taken off in its namespace, nor in what it was made from.
    fn is_whole(&self, init: &Init) -> bool {
        self.shared.borrow_mut().is_whole(&init.changes, init.kind, &self.fence.borrow())
    }

    fn build(&self, processes: &OwnProcesses, kind: Kind, ahead: bool) -> io::Result<Builder> {
        let (fence, shared) = (self.fence.borrow(), self.shared.borrow());
        Builder::start(processes, Wanted { kind, fence: &fence, model: shared.of(kind, &fence), ahead })
    }

    /// What a spare has made: itself if that is wanted, and what others may share.
    fn take_in(&self, spare: Spare, wanted: bool) -> Option<Init> {
        let Spare { builder, fence, .. } = spare;
        if !wanted && !builder.is_ready() {
            return None;
        }
        if wanted {
            // Until now nobody waited for it.
            process::hurry(builder.pid);
        }
        let (init, model) = builder.finish().ok()?;
        if let Some(model) = model {
            self.shared.borrow_mut().add(model, init.kind, fence);
        }
        wanted.then_some(init)
    }

    /// Makes a spare of the last order's kind, unless there is one. What is only a saving may fail.
    pub(super) fn provide(&self, processes: &OwnProcesses) {
        let (Some(kind), Some(changes)) = (self.kind.get(), &self.changes) else { return };
        self.drop_outdated(Instant::now());
        if self.spare.borrow().is_some() {
            return;
        }
        // What was changed up to now it will have, but for what it shares with those before it.
        match changes.happened() {
            Ok(false) => {}
            Ok(true) => self.shared.borrow_mut().clear(),
            Err(_) => return,
        }
        // And what lies in its private places now it will cover.
        let started = self.build(processes, kind.of_now(), true);
        if let (Ok(builder), Some(until)) = (started, Instant::now().checked_add(AGE)) {
            let fence = Rc::clone(&self.fence.borrow());
            self.spare.replace(Some(Spare { builder, fence, until }));
        }
    }

    /// What tells that a spare and what it shares are outdated, while there is one.
    pub(super) fn changes(&self) -> Option<BorrowedFd<'_>> {
        let kept = self.spare.borrow().is_some() || !self.shared.borrow().is_empty();
        self.changes.as_ref().filter(|_| kept).map(AsFd::as_fd)
    }

    /// When [`Household::drop_outdated`] has something to do.
    pub(super) fn wakes(&self) -> Option<Instant> {
        self.spare.borrow().as_ref().map(|spare| spare.until)
    }

    /// Gives up a spare that is too old, and whatever is of a host that has changed since.
    pub(super) fn drop_outdated(&self, now: Instant) {
        let changed = self.changes().is_some() && self.changes.as_ref().is_none_or(|it| it.happened().unwrap_or(true));
        if changed {
            self.drop_all();
        }
        if self.wakes().is_some_and(|until| until <= now) {
            self.drop_spare();
        }
    }

    /// Gives up whatever was made of the host as it was.
    pub(super) fn drop_all(&self) {
        self.shared.borrow_mut().clear();
        self.drop_spare();
    }

    /// Gives up the spare.
    fn drop_spare(&self) {
        if let Some(spare) = self.spare.take() {
            self.see_out(spare.builder.pid);
        }
    }

    /// Has an init leave, and with it everything that its run had. The kernel takes its time over a namespace's mounts, which
    /// nobody waits for.
    pub(super) fn see_out(&self, init: Pid) {
        // A saving may fail.
        drop(process::give_way(init));
        process::signal(init, Signal::SIGKILL);
        self.leaving.borrow_mut().push(init);
    }

    /// Waits until so few are on their way that the monitor may go on; until nobody is, if it has something to clear away.
    pub(super) fn settle(&self, everyone: bool, signals: &Signals) {
        let most = if everyone { 0 } else { Self::MOST };
        while self.take_note(signals) && self.leaving.borrow().len() > most {
            self.leaving.borrow().iter().for_each(|leaving| process::hurry(*leaving));
            drop(poll::readable([Some(signals.as_fd())], None));
        }
    }

    /// One has ended. Whether it is known here.
    pub(super) fn one_less(&self, pid: Pid) -> bool {
        let mut leaving = self.leaving.borrow_mut();
        let before = leaving.len();
        leaving.retain(|leaving| *leaving != pid);
        let spare = self.spare.borrow_mut().take_if(|spare| spare.builder.pid == pid);
        leaving.len() < before || spare.is_some()
    }

    /// Takes note of those who have ended. Whether nobody is left but a spare and those who are on their way: where so many
    /// have ended that there are strangers among them, that is not known.
    pub(super) fn take_note(&self, signals: &Signals) -> bool {
        // Another one is another reason to come here.
        drop(signals.next());
        let each = |pid, _| {
            self.one_less(pid);
        };
        match process::reap_some(each) {
            Ok(Rest::Nobody) => {
                self.leaving.borrow_mut().clear();
                true
            }
            Ok(Rest::Running) => !self.leaving.borrow().is_empty() || self.spare.borrow().is_some(),
            Ok(Rest::More) | Err(_) => false,
        }
    }
}
