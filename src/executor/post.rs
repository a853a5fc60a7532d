//! How a monitor that has done with its order gets another one.
//!
//! To fork a monitor and to bury it costs as much as many a script. So one that is as good as new says so and waits for a
//! moment, and the executor gives it the next order's connection. Where the front-end has asked for it, the last order's
//! connection stays open meanwhile and the next order comes on it, straight from the front-end: then the executor, which
//! would only pass it on, need not wake up. A monitor is as good as new if:
//!
//! - no descendant is left: neither a script's daemon nor anybody who is not buried yet, but for the inits of confined runs
//!   that are over (those are killed and alone, and only the kernel's work on their namespaces is not done yet) and the spare
//!   one for its next order (`household`);
//! - whatever the order brought is closed, but for a connection that is kept: that is all owned by what ends with the order;
//! - it never took on anything of a run: rights, namespaces, limits and control groups are taken on by the script's own
//!   process and by inits. What it gives up itself, it gives up for all of its orders: the capabilities that no
//!   profile of its policy has;
//! - the policy is the one that it was forked with: the executor lets go of its line at a reload.
//!
//! Of an order on a kept connection the executor hears nothing, but finds it noted (`ledger`). Where as many monitors are out
//! as may be at work, it lets go of those that have nothing noted, so that never more than `max_children` are at work.
//!
//! **Invariant:** an order that was given is taken, or the giving fails, or (on a kept connection) it is declined and
//! nothing of it has happened: a monitor that gives up waiting lets nothing more in first, and looks once more.
//!
//! **Invariant:** an order on a kept connection that was written after the executor had let go of the monitor's line is not
//! carried out: not under a policy that is not in force any more, nor for an executor that is gone.
//!
//! **Invariant:** an idle monitor ends with its executor, whose end closes the line.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::household::Household;
use super::report;
use crate::sys::process::{self, Pid, Signals};
use crate::sys::{fdpass, poll};
use crate::wire::order::Report;

/// How long a monitor waits for another order.
const IDLE: Duration = Duration::from_secs(2);
/// How long a job waits for an executor that does not listen, before it is started without what is only for a monitor's death.
const HEARING: Duration = Duration::from_secs(1);
/// Orders after which a monitor makes place for a new one, so that nothing that it gathers goes on for long.
const MOST: u32 = 500;

/// A monitor's end.
#[derive(Debug)]
pub(super) struct Post {
    /// Where orders come from.
    line: OwnedFd,
    /// Where all monitors say that they are free.
    voice: OwnedFd,
    left: Cell<u32>,
}

/// Locks of a job that come with a word: of its script and, the last to be let go, of its status.
pub(super) const LOCKS: usize = 2;

/// What a monitor says to its executor when it is free; and, with its locks, when it is about to start a job's script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) monitor: Pid,
    /// The first process of the run's namespace, if the script is confined.
    pub(super) init: Option<Pid>,
}

impl Word {
    /// As it is sent: two numbers.
    pub(super) const EMPTY: [[u8; size_of::<i32>()]; 2] = [[0; size_of::<i32>()]; 2];

    fn own(init: Option<Pid>) -> [[u8; size_of::<i32>()]; 2] {
        // No process has the number 0.
        [process::own_id().as_raw(), init.map_or(0, Pid::as_raw)].map(i32::to_ne_bytes)
    }

    pub(super) fn parse(bytes: [[u8; size_of::<i32>()]; 2]) -> Self {
        let [monitor, init] = bytes.map(i32::from_ne_bytes).map(Pid::from_raw);
        Self { monitor, init: Some(init).filter(|init| init.as_raw() != 0) }
    }
}

/// Where the next order comes.
#[derive(Debug)]
pub(super) enum Next {
    /// On a connection that the executor has given.
    Given(OwnedFd),
    /// On the connection that was kept.
    Kept(OwnedFd),
}

/// What became of a kept connection.
enum Heard {
    Order,
    /// The front-end has closed it.
    Closed,
    Nothing,
}

impl Post {
    /// At the line of one monitor and the voice of all.
    pub(super) const fn new(line: OwnedFd, voice: OwnedFd) -> Self {
        Self { line, voice, left: Cell::new(MOST) }
    }

    /// Whether there may be another order.
    pub(super) const fn is_open(&self) -> bool {
        self.left.get() > 0
    }

    /// Whether the executor has let go of the line: see the invariants.
    pub(super) fn is_let_go(&self) -> bool {
        poll::closed(self.line.as_fd(), Duration::ZERO).unwrap_or(true)
    }

    /// Waits for the next order, on the connection that is kept if one is; `None` if there is to be none. `household` looks
    /// after its members meanwhile.
    pub(super) fn next(&self, kept: Option<OwnedFd>, signals: &Signals, household: &Household) -> Option<Next> {
        if let Some(connection) = kept {
            match self.hear(&connection, signals, household) {
                Heard::Order => {
                    self.left.update(|left| left.saturating_sub(1));
                    return Some(Next::Kept(connection));
                }
                Heard::Closed => {}
                Heard::Nothing => {
                    part(&connection);
                    return None;
                }
            }
        }
        self.given(signals, household).map(Next::Given)
    }

    /// Hands over another descriptor of each of a job's locks, to be held should this monitor be killed. Those that do not arrive,
    /// because the executor is gone or does not listen, are missing only then.
    pub(super) fn hand_over(&self, locks: [&OwnedFd; LOCKS], init: Option<Pid>) {
        let until = Instant::now() + HEARING;
        let word = Word::own(init);
        // Somebody else may be faster where there is room again.
        while let Err(error) = fdpass::send_at_once(&self.voice, word.as_flattened(), &locks.map(AsFd::as_fd))
            && error.kind() == io::ErrorKind::WouldBlock
        {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || poll::writable(self.voice.as_fd(), left).is_err() {
                return;
            }
        }
    }

    /// Waits for an order on a kept connection.
    fn hear(&self, connection: &OwnedFd, signals: &Signals, household: &Household) -> Heard {
        let Some(until) = Instant::now().checked_add(IDLE) else { return Heard::Nothing };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sources = [Some(connection.as_fd()), Some(self.line.as_fd()), Some(signals.as_fd())];
            let Ok(([order, line, other], changed)) =
                poll::readable_or_changed(sources, household.changes(), Some(left))
            else {
                return Heard::Nothing;
            };
            if changed {
                household.drop_all();
            }
            if order.readable {
                // One that has closed may have given an order before.
                let over = order.closed && !fdpass::has_word(connection).unwrap_or(false);
                return if over { Heard::Closed } else { Heard::Order };
            }
            let goes_on = !line.readable && (changed || other.readable);
            if !(goes_on && household.take_note(signals)) {
                return Heard::Nothing;
            }
        }
    }

    /// Waits for a connection from the executor.
    fn given(&self, signals: &Signals, household: &Household) -> Option<OwnedFd> {
        self.left.set(self.left.get().checked_sub(1)?);
        // If nobody reads it, as many are free as will ever be wanted; or the executor is gone.
        fdpass::send_now(&self.voice, Word::own(None).as_flattened()).ok()?;
        let until = Instant::now().checked_add(IDLE)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sources = [Some(self.line.as_fd()), Some(signals.as_fd())];
            let ([order, other], changed) = poll::readable_or_changed(sources, household.changes(), Some(left)).ok()?;
            if changed {
                household.drop_all();
            }
            if order.readable {
                break;
            }
            let goes_on = changed || other.readable;
            if !(goes_on && household.take_note(signals)) {
                fdpass::close_door(&self.line).ok()?;
                break;
            }
        }
        fdpass::receive(&self.line, &mut [0; 1], 1).ok()?.descriptors.pop()
    }
}

/// Gives up a kept connection: an order that is there is declined, and none can come any more.
pub(super) fn part(connection: &OwnedFd) {
    if fdpass::close_ear(connection).is_ok() && fdpass::has_word(connection).unwrap_or(false) {
        // A front-end that is gone has nobody to give the order to again.
        drop(report::send_now(connection, &Report::Declined));
    }
}
