//! Descendants of scripts that are not confined, after their monitor.
//!
//! A monitor adopts them, to end all of them when it is told to. When it is itself gone, they fall to the service, and that
//! knows whose they were by how the monitor has ended: by itself, then its script has ended before, and whoever is left is
//! left alone (it may be a daemon); or by a signal, then nobody else can end the run any more.
//!
//! What falls to the service in the moment in which it ends a run's processes counts as the run's.

use std::collections::{BTreeMap, BTreeSet};

use crate::sys::process::{self, Pid};

/// Everyone who has fallen to a service.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Who is left alone.
    left: BTreeSet<Pid>,
    /// Who was killed and is not gone yet.
    condemned: BTreeSet<Pid>,
}

impl Orphans {
    /// Whether somebody was killed and is not gone yet.
    pub(super) fn are_dying(&self) -> bool {
        !self.condemned.is_empty()
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
            let others: BTreeSet<Pid> = others.into_iter().filter(|pid| !known(pid)).collect();
            // A monitor that has ended and was not waited for may have been killed, and somebody here be one of its run. Then its
            // end is what comes next.
            let in_doubt = || monitors.keys().any(|monitor| process::has_ended(*monitor));
            if others.is_subset(&self.left) || !in_doubt() {
                self.left = others;
            }
        }
        // Who was about to end may have been waited for by one who was about to be stopped.
        self.condemned.retain(|pid| process::is_descendant(*pid));
    }
}
