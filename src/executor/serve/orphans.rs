//! Descendants of scripts that are not confined, after their monitor.
//!
//! A monitor adopts them, to end all of them when it is told to. When it is itself gone, they fall to the service, and that
//! knows whose they were by how the monitor has ended: by itself, then its script has ended before, and whoever is left is
//! left alone (it may be a daemon); or by a signal, then nobody else can end the run any more. The lock of a job's script,
//! which the kernel takes from a monitor that is killed, is held here until they are gone.
//!
//! What falls to the service in the moment in which it ends a run's processes counts as the run's.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use crate::sys::process::{self, Pid};

/// Everyone who has fallen to a service, and the locks.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Who is left alone.
    left: BTreeSet<Pid>,
    /// Who was killed and is not gone yet.
    condemned: BTreeSet<Pid>,
    /// Locks of the scripts of jobs under way, by their monitors.
    locks: BTreeMap<Pid, OwnedFd>,
    /// Those of monitors that were killed, until nobody is condemned.
    held: Vec<OwnedFd>,
}

impl Orphans {
    /// A monitor has handed over another descriptor of its job's lock. It lets go of the lock itself at the job's end, for
    /// all descriptors.
    pub(super) fn hold(&mut self, monitor: Pid, lock: OwnedFd) {
        self.locks.insert(monitor, lock);
    }

    /// A monitor has done with its order.
    pub(super) fn release(&mut self, monitor: Pid) {
        self.locks.remove(&monitor);
    }

    /// A monitor was killed.
    pub(super) fn bereave(&mut self, monitor: Pid) {
        self.held.extend(self.locks.remove(&monitor));
    }

    /// Somebody who is no monitor has ended.
    pub(super) fn bury(&mut self, pid: Pid) {
        self.condemned.remove(&pid);
        self.left.remove(&pid);
    }

    /// Looks who has fallen to this service now that somebody has ended; ends them if that was a monitor that was `killed`.
    pub(super) fn look<T>(&mut self, monitors: &BTreeMap<Pid, T>, killed: bool) {
        // Without /proc nobody can be found.
        if killed {
            let spared = monitors.keys().chain(&self.left).copied().collect();
            self.condemned.extend(process::freeze_and_kill_but(&spared).unwrap_or_default());
        } else {
            let others = process::children().unwrap_or_default();
            let known = |pid: &Pid| monitors.contains_key(pid) || self.condemned.contains(pid);
            self.left = others.into_iter().filter(|pid| !known(pid)).collect();
        }
        if !self.condemned.is_empty() {
            // Who was about to end may have been waited for by one who was about to be stopped.
            let spared = monitors.keys().chain(&self.left).copied().collect();
            let there = process::descendants_but(&spared).unwrap_or_default();
            self.condemned.retain(|pid| there.contains(pid));
        }
        if self.condemned.is_empty() {
            self.held.clear();
        }
    }
}
