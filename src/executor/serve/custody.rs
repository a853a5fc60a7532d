//! The locks of jobs under way, after their monitors.
//!
//! The kernel takes a monitor's descriptors from it, and its jobs' locks with them, before it ends what the monitor has started:
//! whoever waited for them would find processes of the run. So the service has another descriptor of each lock, and where a
//! monitor has ended, keeps that until nobody of the run is left:
//!
//! - a confined run's init falls to the service with its monitor's end, whose child it was. It can be waited for when everyone in
//!   its namespace is gone, and not before (`pid_namespaces(7)`);
//! - who is not confined is ended by the service itself (`orphans`).
//!
//! A monitor that has done with a job lets go of its locks for all descriptors (flock(2)), so that nothing is held here then.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crate::sys::process::Pid;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Custody {
    /// By monitor.
    under_way: BTreeMap<Pid, Held>,
    /// Of those that have ended.
    bereft: Vec<Held>,
}

/// The locks of a job.
#[derive(Debug)]
struct Held {
    /// The first process of the run's namespace, if it has one.
    init: Option<Pid>,
    /// Only ever to be closed, in this order.
    _locks: Vec<OwnedFd>,
}

impl Custody {
    /// A monitor has handed over the locks of the job that it is about to start.
    pub(super) fn hold(&mut self, monitor: Pid, init: Option<Pid>, locks: Vec<OwnedFd>) {
        self.under_way.insert(monitor, Held { init, _locks: locks });
    }

    /// A monitor has done with its order.
    pub(super) fn release(&mut self, monitor: Pid) {
        self.under_way.remove(&monitor);
    }

    /// A monitor has ended.
    pub(super) fn bereave(&mut self, monitor: Pid) {
        self.bereft.extend(self.under_way.remove(&monitor));
    }

    /// Lets go of those of runs of which nobody `is_left`, which is asked with the first process of the namespace.
    pub(super) fn settle(&mut self, is_left: impl Fn(Option<Pid>) -> bool) {
        self.bereft.retain(|held| is_left(held.init));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::file;

    const MONITOR: Pid = Pid::from_raw(7);
    const INIT: Pid = Pid::from_raw(8);

    /// What a monitor hands over, which has just been killed.
    fn locks(dir: &Path) -> Vec<OwnedFd> {
        let lock = |name: &str| {
            let file = File::options().create(true).append(true).open(dir.join(name)).unwrap();
            file.lock().unwrap();
            file.into()
        };
        vec![lock("script"), lock("status")]
    }

    fn are_held(dir: &Path) -> [bool; 2] {
        ["script", "status"].map(|name| file::is_locked(&dir.join(name)).unwrap().unwrap())
    }

    #[test]
    fn the_locks_of_a_dead_monitor_are_held_while_somebody_of_its_run_is_left() {
        for init in [Some(INIT), None] {
            let dir = tempfile::tempdir().unwrap();
            let mut custody = Custody::default();
            custody.hold(MONITOR, init, locks(dir.path()));
            custody.settle(|_| false);
            assert_eq!(are_held(dir.path()), [true; 2], "its monitor lives");
            custody.bereave(Pid::from_raw(9));
            custody.settle(|_| false);
            assert_eq!(are_held(dir.path()), [true; 2], "another monitor's end");
            custody.bereave(MONITOR);
            custody.settle(|asked| asked == init);
            assert_eq!(are_held(dir.path()), [true; 2], "somebody is left");
            custody.settle(|asked| asked != init);
            // A process that another test has forked has them for a moment more.
            let deadline = Instant::now() + Duration::from_mins(1);
            while are_held(dir.path()) != [false; 2] {
                assert!(Instant::now() < deadline, "nobody is left");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_job_that_is_done_or_replaced_leaves_no_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let mut custody = Custody::default();
        for _ in 0..2 {
            custody.hold(MONITOR, Some(INIT), locks(dir.path()));
            custody.release(MONITOR);
        }
        assert_eq!((custody.under_way.len(), custody.bereft.len()), (0, 0));
    }
}
