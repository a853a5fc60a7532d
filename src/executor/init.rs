//! Process 1 of a run's namespaces: it makes them and what the script will see, hands them to the monitor, and stands by: it
//! passes on requests to end, and buries the dead. The script's process is the monitor's child, not its own.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::fence::{self, Fence};
use super::kind::Kind;
use super::tree;
use crate::sys::locks::Model;
use crate::sys::mount::Changes;
use crate::sys::process::{self, Fault, Rest, Signal, Signals};
use crate::sys::spaces::{self, Listing, Spaces};
use crate::sys::{fdpass, inherited, mount, poll, user};

/// Status of an init that could not do its work. The monitor learns the reason over the line instead.
const FAILED: i32 = 127;
/// What goes over the line: everything is made, and comes along; the same, behind what other runs may share; end everyone;
/// everyone has ended.
pub(super) const READY: u8 = b'r';
pub(super) const SHARED: u8 = b's';
pub(super) const BURY: u8 = b'b';
pub(super) const BURIED: u8 = b'd';

/// What a run's namespaces are made for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) kind: Kind,
    pub(super) fence: &'a Fence,
    /// What runs of this kind and fence share. Without, it is made.
    pub(super) model: Option<&'a Model>,
    /// Nobody waits for it, and another run may follow: what is made to be shared comes along.
    pub(super) ahead: bool,
}

/// Does all of it; the process ends with this function. `line` leads to the monitor: a step that failed is told on it too.
///
/// **Invariant:** called in the first process of its namespace, which has one thread.
pub(super) fn run(wanted: Wanted<'_>, line: &OwnedFd) -> ! {
    match prepare(wanted, line) {
        Ok(signals) => stand_by(&signals, line),
        Err(fault) => fault.report(line),
    }
    process::end(FAILED)
}

const SIGNALS: [Signal; 2] = [Signal::SIGCHLD, Signal::SIGTERM];

/// Up to the word that everything is made.
///
/// **Invariant:** from then on, when a script can send some, no signals wait here but one of each of [`SIGNALS`]. What waits counts
/// against the account of this process, which is root's, and so keeps others of root's from what they need, monitors among them.
fn prepare(wanted: Wanted<'_>, line: &OwnedFd) -> Result<Signals, Fault> {
    let Wanted { kind, model, ahead, .. } = wanted;
    process::die_with_parent().map_err(Fault::confining("parent-death-signal"))?;
    inherited::leave_all_signals().map_err(Fault::confining("init"))?;
    // Who changes its limits nevertheless, with a capability of the profile's, ends it, and so the run.
    drop(user::keep_limits());
    // Before it waits for anything: an order's lock or connection must not stay open here. And while the monitor's end of the
    // line is open here, its end would not show.
    let kept = [line.as_fd()].into_iter().chain(model.into_iter().flat_map(Model::descriptors)).collect::<Vec<_>>();
    process::keep_only(&kept).map_err(Fault::confining("close-descriptors"))?;
    let signals = Signals::collect_only(&SIGNALS).map_err(Fault::confining("init"))?;
    // It may have ended just before it was to take this one along; then nobody listens.
    let [ready] =
        poll::readable([Some(line.as_fd())], Some(Duration::ZERO)).map_err(Fault::confining("parent-death-signal"))?;
    if ready.closed {
        process::end(FAILED);
    }
    process::set_umask(0);
    let spaces = || Fault::confining("namespaces");
    spaces::own_objects(!kind.network).map_err(spaces())?;
    let listing = Listing::open().map_err(spaces())?;
    let made;
    let (model, word) = if let Some(model) = model {
        (model, READY)
    } else {
        made = share(wanted, &listing)?;
        (&made, if ahead { SHARED } else { READY })
    };
    let (tree, blinds) = tree::prepare(kind, model, &listing)?;
    // Nothing more is mounted here until a run has it. What the model has lost by now, the copy may never have had: the monitor
    // asks that of one that it has itself.
    let changes = Changes::watch_by(&listing).map_err(spaces())?;
    let nobody_elses = wanted.model.is_none() && !ahead;
    if nobody_elses && model.changes().happened().unwrap_or(true) {
        return Err(Fault::confining("hidden")(fence::moved()));
    }
    let spaces = Spaces::own(&listing, !kind.network, (tree.mounts, tree.root)).map_err(spaces())?;
    let shared = model.descriptors();
    let shared = if word == SHARED { &shared[..] } else { &[] };
    let all = [shared, &[changes.as_fd()], &blinds.descriptors(), &spaces.descriptors()].concat();
    fdpass::send(line, &[word], &all).map_err(Fault::confining("namespaces"))?;
    Ok(signals)
}

/// In a namespace of mounts of its own, which this process leaves again.
fn share(wanted: Wanted<'_>, listing: &Listing) -> Result<Model, Fault> {
    mount::leave().map_err(Fault::confining("namespaces"))?;
    tree::share(wanted.kind, wanted.fence, (wanted.ahead, listing))
}

/// Until the monitor ends, or wants everyone to; or this process can wait no more, for want of memory or because somebody in the
/// run may change its limits and has: then the kernel ends everyone. Only the monitor is obeyed, which is outside of the
/// namespace and so has no number here.
fn stand_by(signals: &Signals, line: &OwnedFd) {
    let mut behind = false;
    loop {
        let sources = [Some(signals.as_fd()), Some(line.as_fd())];
        let Ok([_, asked]) = poll::readable(sources, behind.then_some(Duration::ZERO)) else { return };
        // One at a time, and of the dead only some: nobody keeps this process from its monitor by sending it more.
        if let Ok(Some((Signal::SIGTERM, 0))) = signals.next_from() {
            process::signal_everyone(Signal::SIGTERM);
            process::signal_everyone(Signal::SIGCONT);
        }
        behind = matches!(process::reap_some(|_, _| ()), Ok(Rest::More));
        if asked.readable {
            match wish(line) {
                Ok(BURY) => bury_everyone(signals),
                _ => process::end(FAILED),
            }
            // If the monitor is gone, nobody wants to know.
            drop(fdpass::send_now(line, &[BURIED]));
            process::end(0);
        }
    }
}

fn wish(line: &OwnedFd) -> io::Result<u8> {
    let mut word = [0];
    fdpass::receive_now(line, &mut word)?;
    Ok(u8::from_ne_bytes(word))
}

/// Ends everyone else in the namespace and waits until they are gone, so that what is told then is told of a run that has
/// left nobody behind. The kernel would do the same at this process's own end, which takes longer: the monitor need not
/// wait for that.
///
/// Orphans fall to this process, and so does whoever the script's process leaves behind when it ends, so that whoever is left
/// is among its children or below one.
fn bury_everyone(signals: &Signals) {
    loop {
        let behind = match process::reap_some(|_, _| ()) {
            Ok(rest @ (Rest::More | Rest::Running)) => rest == Rest::More,
            Ok(Rest::Nobody) | Err(_) => return,
        };
        process::signal_everyone(Signal::SIGKILL);
        if !behind {
            if poll::readable([Some(signals.as_fd())], None).is_err() {
                process::end(FAILED);
            }
            drop(signals.next());
        }
    }
}

#[cfg(test)]
mod unit_tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    use super::*;
    use crate::sys::process::tests::in_a_process;

    #[test]
    fn one_that_can_wait_no_more_ends_instead_of_asking_for_ever() {
        let text = in_a_process("init", || {
            let (_monitor, line) = fdpass::pair(fdpass::Kind::Messages).unwrap();
            let signals = Signals::collect(&SIGNALS).unwrap();
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            // As with prlimit(2): fewer than it waits for (poll(2)).
            setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
            stand_by(&signals, &line);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            "ended".to_owned()
        });
        assert_eq!(text, "ended");
    }
}
