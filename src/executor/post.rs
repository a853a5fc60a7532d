//! How a monitor that has done with its order gets another one.
//!
//! To fork a monitor and to bury it costs as much as many a script. So one that is as good as new says so and waits for a
//! moment, and the executor gives it the next order. It is as good as new if:
//!
//! - no descendant is left: neither a script's daemon nor anybody who is not buried yet, but for the inits of confined runs
//!   that are over (those are killed and alone, and only the kernel's work on their namespaces is not done yet) and the spare
//!   one for its next order (`household`);
//! - whatever the order brought is closed: that is all owned by what ends with the order;
//! - it never took on anything of a run: rights, namespaces, limits and control groups are taken on by the script's own
//!   process and by inits. What it gives up itself, it gives up for all of its orders: the capabilities that no
//!   profile of its policy has;
//! - the policy is the one that it was forked with: the executor lets go of its line at a reload.
//!
//! **Invariant:** an order that was given is taken, or the giving fails: a monitor that gives up waiting closes its line
//! to further orders first, and looks once more.
//!
//! **Invariant:** an idle monitor ends with its executor, whose end closes the line.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::household::Household;
use crate::sys::process::{self, Signals};
use crate::sys::{fdpass, poll};

/// How long a monitor waits for another order.
const IDLE: Duration = Duration::from_secs(2);
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

impl Post {
    /// At the line of one monitor and the voice of all.
    pub(super) const fn new(line: OwnedFd, voice: OwnedFd) -> Self {
        Self { line, voice, left: Cell::new(MOST) }
    }

    /// Whether there may be another order.
    pub(super) const fn is_open(&self) -> bool {
        self.left.get() > 0
    }

    /// Waits for the next order's connection; `None` if there is to be none. `household` looks after its members meanwhile.
    pub(super) fn next(&self, signals: &Signals, household: &Household) -> Option<OwnedFd> {
        self.left.set(self.left.get().checked_sub(1)?);
        // If nobody reads it, as many are free as will ever be wanted; or the executor is gone.
        fdpass::send_now(&self.voice, &process::own_id().as_raw().to_ne_bytes()).ok()?;
        let until = Instant::now().checked_add(IDLE)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let sources = [Some(self.line.as_fd()), Some(signals.as_fd())];
            let ([order, other], changed) = poll::readable_or_changed(sources, household.changes(), Some(left)).ok()?;
            if changed {
                household.drop_spare();
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
