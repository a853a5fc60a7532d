//! Standing by an executor that nobody else could start again.
//!
//! A front-end that has given up root cannot start a root executor. So the process that it started while it could is
//! two: the service, and this keeper, which does nothing but wait. If the service dies, by a fault or the kernel's want
//! of memory, another takes its place on the same socket: runs under way have monitors of their own and notice nothing,
//! and an order that comes meanwhile waits in the socket.
//!
//! The keeper also adopts the monitors whose service has died before them. In a container, where no init does, it waits for
//! them, so that no zombies gather. It starts no script itself, and none that is confined can leave anybody behind: those fall
//! to the first process of their own namespace, wherever a keeper is. Where a monitor was killed as well, its run's init and the
//! script's process fall to the keeper, and no other service takes orders before they are gone: the service held the locks of
//! their job, which ended with it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::memory;
use crate::sys::poll;
use crate::sys::process::{self, End, Fork, Pid, Rest, Signal, Signals};

/// A service that lived shorter than this is followed by a pause as long, so that one that cannot live costs little, and
/// so does a front-end that asks for one upgrade after the other.
const SHORT: Duration = Duration::from_millis(200);

/// How long another service waits for the end of runs whose monitors have ended with the one before: longer than the kernel
/// takes for it, unless a process hangs in a file system that does not answer.
const ENDING: Duration = Duration::from_secs(5);

/// How a service ends that wants its keeper to take up another file. No status of the program's own.
pub(super) const UPGRADE: u8 = 99;

/// Hears of a process and the signal that has ended it.
type Killed<'a> = &'a dyn Fn(Pid, i32);

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This is the service's process.
    Serve,
    /// This is still the keeper's: the service has died like this, and is to be started again.
    Again(End),
    /// This is still the keeper's: the service has ended so that another file can be taken up.
    Upgrade,
    /// This is still the keeper's: the front-end is gone.
    Over,
}

/// Makes the service's process and waits for its end. `killed` hears of everybody else whom a signal has ended meanwhile:
/// monitors of a service before, among others.
///
/// **Invariant:** the caller has one thread.
///
/// # Errors
/// Out of processes or descriptors.
pub(super) fn keep(control: &OwnedFd, killed: Killed<'_>) -> io::Result<Verdict> {
    process::adopt_orphans()?;
    // Who wants the end tells the front-end, or the service; the keeper follows.
    let signals = Signals::collect(&[Signal::SIGCHLD, Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM])?;
    let started = Instant::now();
    let service = match process::fork()? {
        Fork::Child => return Ok(Verdict::Serve),
        Fork::Parent(pid) => pid,
    };
    // It needs next to nothing of the program until the service ends. What is only a saving may fail.
    drop(memory::forget_unchanged());
    let end = wait_for(service, &signals, killed)?;
    if gone(control, Duration::ZERO)? {
        return Ok(Verdict::Over);
    }
    if started.elapsed() < SHORT && gone(control, SHORT)? {
        return Ok(Verdict::Over);
    }
    see_out_runs(&signals, killed)?;
    Ok(if end == End::Exited(UPGRADE) { Verdict::Upgrade } else { Verdict::Again(end) })
}

/// Waits for `service`, and takes note of everybody else who ends meanwhile.
fn wait_for(service: Pid, signals: &Signals, killed: Killed<'_>) -> io::Result<End> {
    loop {
        match reap(Some(service), killed)? {
            (Some(end), _) => return Ok(end),
            (None, Rest::More) => {}
            (None, Rest::Running) => wait_for_another(signals, None)?,
            (None, Rest::Nobody) => return Err(io::Error::other("the service is not the keeper's child")),
        }
    }
}

/// Waits until nobody is left of runs whose monitors have ended: they alone are this process's children and in a namespace of
/// their own, where the kernel is about to end everyone.
fn see_out_runs(signals: &Signals, killed: Killed<'_>) -> io::Result<()> {
    let until = Instant::now() + ENDING;
    loop {
        let (_, rest) = reap(None, killed)?;
        let left = until.saturating_duration_since(Instant::now());
        // Without /proc nobody can be found, nor of one who has ended meanwhile where he was.
        let is_of_a_run = |pid: Pid| process::is_a_neighbour(pid).is_ok_and(|neighbour| !neighbour);
        let any = || process::children().unwrap_or_default().into_iter().any(is_of_a_run);
        if left.is_zero() || rest == Rest::Nobody || !any() {
            return Ok(());
        }
        let at_once = (rest == Rest::More).then_some(Duration::ZERO);
        wait_for_another(signals, Some(at_once.unwrap_or(left)))?;
    }
}

/// Takes note of children that have ended, as many as leave time for other things. How the service has, if it is one of them;
/// `killed` hears of the others.
fn reap(service: Option<Pid>, killed: Killed<'_>) -> io::Result<(Option<End>, Rest)> {
    let mut ended = None;
    let rest = process::reap_some(|pid, end| match end {
        _ if Some(pid) == service => ended = Some(end),
        End::Signalled(signal) => killed(pid, signal),
        End::Exited(_) => {}
    })?;
    Ok((ended, rest))
}

/// Waits until another child has ended.
fn wait_for_another(signals: &Signals, limit: Option<Duration>) -> io::Result<()> {
    poll::readable([Some(signals.as_fd())], limit)?;
    // One at a time: whoever sends more is heard of again.
    signals.next().map(drop)
}

/// Whether the front-end goes away within `limit`. A message that waits does not end the wait.
fn gone(control: &OwnedFd, limit: Duration) -> io::Result<bool> {
    poll::closed(control.as_fd(), limit)
}
