//! Process 1 of a run's namespace: it builds what the script sees, starts it, passes on requests to end, buries the
//! dead, and reports how the script ended.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::confinement::Confinement;
use super::limits::Means;
use super::{rights, tree};
use crate::sys::cgroup::{Delegation, Group};
use crate::sys::mount::{self, Left};
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, End, Fault, Pid, Reaped, Signal, Signals, Spawn};
use crate::sys::seccomp::Filter;
use crate::sys::{pipe, poll};

/// Status of an init that could not do its work. The monitor learns the reason from the pipe instead.
const FAILED: i32 = 127;

/// What a confined run is made of.
pub(super) struct Work<'a> {
    /// The order's and the profile's own words.
    pub(super) confinement: &'a Confinement,
    /// How its limits are enforced.
    pub(super) means: Means,
    /// The control group, if it has one.
    pub(super) group: Option<&'a (Delegation, Group)>,
    /// The network that the executor has left.
    pub(super) network: Option<&'a HostNetwork>,
    /// The filter of system calls for its network, or why there is none.
    pub(super) filter: &'a io::Result<Filter>,
    /// The script.
    pub(super) spawn: Spawn,
}

/// Does all of it; the process ends with this function. `failure` takes a step that failed, `report` the script's end.
///
/// **Invariant:** called in the first process of its namespace, which has one thread.
pub(super) fn run(work: Work<'_>, failure: &OwnedFd, report: &OwnedFd) -> ! {
    match start(work, failure) {
        Ok(script) => {
            // The script's process alone decides from here on whether exec succeeds.
            if process::keep_only(report).is_ok() {
                stand_by(script, report);
            }
        }
        Err(fault) => fault.report(failure),
    }
    process::end(FAILED)
}

fn start(work: Work<'_>, failure: &OwnedFd) -> Result<Pid, Fault> {
    let Work { confinement, means, group, network: host, filter, spawn } = work;
    process::die_with_parent().map_err(Fault::confining("parent-death-signal"))?;
    // It may have ended just before that; then nobody listens.
    if pipe::is_deserted(failure).map_err(Fault::confining("parent-death-signal"))? {
        process::end(FAILED);
    }
    if let Some((_, group)) = group {
        group.enter().map_err(Fault::confining("control-group"))?;
    }
    let network = !confinement.profile().network;
    if let Some(host) = host.filter(|_| !network) {
        host.enter().map_err(Fault::confining("network"))?;
    }
    mount::leave(Left { network }).map_err(Fault::confining("namespaces"))?;
    tree::build(confinement, spawn.program(), group.map(|(here, _)| here.mount()))?;
    let own = process::own_id();
    let script = process::fork_for_exec(|| {
        spawn
            .become_program(own, failure, || rights::give_up(spawn.program(), confinement, means, filter))
            .report(failure);
    });
    script.map_err(Fault::confining("fork"))
}

/// Until the script has ended. Only the monitor is obeyed, which is outside of the namespace and so has no number here.
fn stand_by(script: Pid, report: &OwnedFd) {
    let Ok(signals) = Signals::collect(&[Signal::SIGCHLD, Signal::SIGTERM]) else { return };
    loop {
        // It fails only without memory for one entry; then we come round again.
        drop(poll::readable([Some(signals.as_fd())], None));
        while let Ok(Some((signal, sender))) = signals.next_from() {
            if signal == Signal::SIGTERM && sender == 0 {
                process::signal_everyone(Signal::SIGTERM);
                process::signal_everyone(Signal::SIGCONT);
            }
        }
        while let Ok(Reaped::Child(pid, end)) = process::reap() {
            if pid == script {
                bury_everyone(&signals);
                tell(report, end);
            }
        }
    }
}

/// Ends everyone else in the namespace and waits until they are gone, so that what is told then is told of a run that has
/// left nobody behind. The kernel would do the same at this process's own end, which takes longer: the monitor need not
/// wait for that.
///
/// Orphans fall to this process, so that whoever is left is among its children or below one. To signal everyone means a
/// look at every process of the host; a script that has left nobody behind is spared that.
fn bury_everyone(signals: &Signals) {
    loop {
        loop {
            match process::reap() {
                Ok(Reaped::Child(..)) => {}
                Ok(Reaped::Running) => break,
                Ok(Reaped::Nobody) | Err(_) => return,
            }
        }
        process::signal_everyone(Signal::SIGKILL);
        drop(poll::readable([Some(signals.as_fd())], None));
        while matches!(signals.next(), Ok(Some(_))) {}
    }
}

/// Then the process ends, and with it its namespace.
fn tell(report: &OwnedFd, end: End) -> ! {
    // If the monitor is gone, nobody wants to know.
    drop(pipe::write(report, &end.to_bytes()));
    process::end(0)
}
