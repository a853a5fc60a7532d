//! A confined run: from a plan to a script that can reach only what its profile leaves it.
//!
//! # The order of steps
//!
//! The monitor (root, the host's namespaces; before its first confined run it takes out of the bounding set, for good, what
//! no profile of its policy has):
//!
//! 1. sees that every listed capability is there to be given, and chooses the means for each limit (`limits`);
//! 2. makes the control group, if a limit needs one, and the pipes;
//! 3. asks for a process namespace and forks into it.
//!
//! The init (`init`; process 1 of that namespace, root, never the script itself):
//!
//! 4. is killed when the monitor ends; is closed to other processes (not dumpable); enters the control group;
//! 5. goes back to the host's network, which the executor has left, unless the profile has `network = no`;
//!    takes namespaces of its own for mounts, System V objects, host name and, with `network = no`, network, and makes
//!    the mounts private;
//! 6. builds the tree (`tree`, which has its own list);
//! 7. forks the script's process, keeps nothing but the pipe for its status, and stands by.
//!
//! The script's process (`rights`), still root:
//!
//! 8. own session, standard descriptors, default signals;
//! 9. limits on its resources;
//! 10. Landlock rules are prepared, while every path can still be opened;
//! 11. supplementary groups; uid 0 becomes a user like any other (secure bits, locked); the bounding set is cut as far
//!     as the kernel counts; group, then user;
//! 12. `no_new_privs`, if the profile has it;
//! 13. the Landlock rules; 14. the filter of system calls. Both need `no_new_privs` or a capability, and profiles without
//!     the first are confined no less: so the capabilities go last;
//! 15. permitted, effective and inheritable sets become exactly the profile's, then the ambient one;
//! 16. ids, groups, sets, secure bits and `no_new_privs` are read back: any difference refuses the run;
//! 17. working directory and umask; the file is still the one that was judged; every other descriptor is closed; exec.
//!
//! A step that fails ends the run before the script's first instruction, with an outcome that names the step.
//!
//! # Its end
//!
//! When the script's process ends, its init kills whatever is left in the namespace, waits until it is gone, reports the
//! status and ends: **a daemon that a script leaves behind does not outlive a confined run.** When the run is to end, init
//! passes a request to end to everyone, and after the grace the monitor kills init, which is killing everyone at once.
//! The kernel lets the monitor learn of init's end only when the namespace is empty. An outcome is told at either of the
//! two moments. The kernel takes its time over the namespace's mounts after that, and the monitor goes on to its next order
//! meanwhile; it waits for the end of all only where a control group is to be removed.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::confinement::Confinement;
use super::init::{self, Work};
use super::limits::means;
use super::offer;
use crate::sys::cgroup::{self, Controllers, Delegation, Group};
use crate::sys::mount::OwnProcesses;
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, End, Fork, Pid, Reaped, Signal, Signals, Spawn, Spawned};
use crate::sys::seccomp::{Filter, Wanted};
use crate::sys::{capability, pipe, poll};
use crate::wire::outcome::Outcome;

/// Called once by a root executor before its first order: makes limits on memory, processes and CPU time enforceable,
/// where the host allows it. Returns what is.
///
/// # Errors
/// The host has no version 2 control groups, or the executor's is not its own to divide. Profiles without such limits
/// work nevertheless; runs under the others are refused with the reason.
pub fn prepare() -> io::Result<Controllers> {
    cgroup::settle()
}

/// Clears away what a monitor that was killed has left: the control group of its run. Returns whether none is left.
pub(super) fn sweep() -> bool {
    Delegation::find().map_or(true, |here| here.sweep())
}

/// The namespace of a run, from outside.
#[derive(Debug)]
pub(super) struct Space {
    init: Pid,
    /// Brings the script's own end, if init lived to see it.
    status: OwnedFd,
    group: Option<(Delegation, Group)>,
    memory: Option<u64>,
}

/// The inits of runs that are over, on their way out: killed, alone in their namespaces, and not waited for yet.
///
/// **Invariant:** a monitor that confines has no other children than its run's init and these.
#[derive(Debug, Default)]
pub(super) struct Leaving(Cell<usize>);

impl Leaving {
    /// With so many on their way, a monitor waits for one before it goes on. It takes a host that is busy beyond measure.
    const MOST: usize = 16;

    fn one_more(&self) {
        self.0.set(self.0.get().saturating_add(1));
    }

    /// One has left.
    pub(super) fn one_less(&self) {
        self.0.set(self.0.get().saturating_sub(1));
    }

    /// Takes note of everyone who has ended. Whether nobody is left but those who are on their way.
    pub(super) fn take_note(&self, signals: &Signals) -> bool {
        while matches!(signals.next(), Ok(Some(_))) {}
        loop {
            match process::reap() {
                Ok(Reaped::Child(..)) => self.one_less(),
                Ok(Reaped::Nobody) => {
                    self.0.set(0);
                    return true;
                }
                Ok(Reaped::Running) => return self.0.get() > 0,
                Err(_) => return false,
            }
        }
    }

    fn until_at_most(&self, most: usize, signals: &Signals) {
        while self.take_note(signals) && self.0.get() > most {
            drop(poll::readable([Some(signals.as_fd())], None));
        }
    }
}

/// What a monitor has of the world outside of a run.
#[derive(Clone, Copy)]
pub(super) struct Outside<'a> {
    /// The network that the executor has left.
    pub(super) network: Option<&'a HostNetwork>,
    /// What is known from the first confined run on.
    pub(super) lasting: &'a OnceCell<Lasting>,
    /// The capabilities that some profile has.
    pub(super) granted: capability::Set,
}

impl<'a> Outside<'a> {
    fn lasting(self) -> Result<&'a Lasting, Outcome> {
        if let Some(known) = self.lasting.get() {
            return Ok(known);
        }
        let found = Lasting::look(self.granted)?;
        Ok(self.lasting.get_or_init(|| found))
    }
}

/// What does not change while a monitor lives.
#[derive(Debug)]
pub(super) struct Lasting {
    /// The process namespace of the host.
    processes: OwnProcesses,
    /// The capabilities that it can give.
    available: capability::Set,
    /// The filters of system calls: for a run with the host's network, and for one without. One that there is none of
    /// fails the run that wants it.
    filters: [io::Result<Filter>; 2],
}

impl Lasting {
    /// Looks. From now on nobody below this process can have another capability than those of `granted`, which are all
    /// that any profile has. Each run cuts off the rest of what its own profile lacks; this is most of it, at once for
    /// all runs of this monitor.
    ///
    /// # Errors
    /// The outcome of the run that wanted to know.
    fn look(granted: capability::Set) -> Result<Self, Outcome> {
        // A run does it again, and refuses if it cannot.
        drop(capability::bound(granted));
        let available = capability::available().map_err(failed("caps"))?;
        let filters = [false, true].map(|no_network| Filter::new(Wanted { no_network }));
        Ok(Self { processes: OwnProcesses::find().map_err(failed("process-namespace"))?, available, filters })
    }
}

fn fail(step: &str, reason: String) -> Outcome {
    Outcome::NotConfined { step: step.to_owned(), reason }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> Outcome {
    move |error| fail(step, error.to_string())
}

/// Starts a plan's script in its confinement.
///
/// # Errors
/// The outcome: nothing runs, and which step failed.
pub(super) fn start(
    confinement: &Confinement,
    spawn: Spawn,
    outside: Outside<'_>,
) -> Result<(Spawned, Space), Outcome> {
    let Lasting { processes, available, filters: [with_network, without] } = outside.lasting()?;
    offer::caps(confinement, *available).map_err(|lacking| fail(lacking.key, lacking.why))?;
    let delegated = || Delegation::find().and_then(|here| here.controllers()).unwrap_or_default();
    let means = means(confinement, delegated).map_err(|limit| fail(limit.key, limit.why))?;
    let group = means.group.map(|limits| {
        let here = Delegation::find()?;
        let group = here.create_for_run(limits)?;
        Ok((here, group))
    });
    let group = group.transpose().map_err(failed("control-group"))?;
    let (verdict, failure) = pipe::pipe().map_err(failed("pipe"))?;
    let (status, report) = pipe::pipe().map_err(failed("pipe"))?;
    match processes.fork_into_new().map_err(failed("process-namespace"))? {
        Fork::Parent(init) => {
            let memory = confinement.profile().memory_max;
            Ok((Spawned { pid: init, verdict }, Space { init, status, group, memory }))
        }
        Fork::Child => {
            // While it is open here, the monitor's end would not show.
            drop((verdict, status));
            let filter = if confinement.profile().network { with_network } else { without };
            let work = Work { confinement, means, group: group.as_ref(), network: outside.network, filter, spawn };
            init::run(work, &failure, &report)
        }
    }
}

impl Space {
    /// Asks everyone in it to end.
    pub(super) fn terminate(&self) {
        process::signal(self.init, Signal::SIGTERM);
    }

    /// Ends everyone in it.
    pub(super) fn kill(&self) {
        process::signal(self.init, Signal::SIGKILL);
        // Init's death is enough; this reaches whoever the kernel has not got round to yet.
        drop(self.group.as_ref().map(|(_, group)| group.kill()));
    }

    /// Readable when init tells the script's end, or has ended without.
    pub(super) fn ear(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// What became of the script, if init tells it; then nobody but init is left.
    pub(super) fn told(&self) -> Option<Outcome> {
        self.message().map(|end| self.judge(end))
    }

    /// Has init leave, and with it everything that the run had. The kernel takes its time over a namespace's mounts, which
    /// nobody waits for: only a control group has to be empty before it can be removed.
    pub(super) fn see_out(self, signals: &Signals, leaving: &Leaving) {
        // It is about to end by itself; nobody depends on that.
        process::signal(self.init, Signal::SIGKILL);
        leaving.one_more();
        leaving.until_at_most(if self.group.is_some() { 0 } else { Leaving::MOST }, signals);
    }

    fn message(&self) -> Option<End> {
        let mut message = [0; 16];
        let size = pipe::read(&self.status, &mut message).ok()?;
        End::from_bytes(message.get(..size)?)
    }

    /// What became of the script, once init has ended in this way.
    pub(super) fn outcome(self, init: End) -> Outcome {
        match (self.message(), init) {
            (Some(script), _) => self.judge(script),
            (None, End::Signalled(_)) => self.judge(init),
            (None, End::Exited(_)) => {
                let reason = "the first process of the run's namespace ended without telling what became of the script";
                Outcome::NotConfined { step: "init".to_owned(), reason: reason.to_owned() }
            }
        }
    }

    fn judge(&self, end: End) -> Outcome {
        let ran_out = || self.group.as_ref().is_some_and(|(_, group)| group.ran_out_of_memory());
        match (end, self.memory) {
            (End::Signalled(9), Some(limit)) if ran_out() => Outcome::OutOfMemory { limit },
            (End::Signalled(signal), _) => Outcome::Signalled { signal },
            (End::Exited(code), _) => Outcome::Exited { code },
        }
    }
}
