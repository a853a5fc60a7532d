//! A confined run: from a plan to a script that can reach only what its profile leaves it.
//!
//! # The order of steps
//!
//! An init (`init`; process 1 of a new process namespace, root, never the script itself) is made by the monitor, often before
//! there is an order (`household`):
//!
//! 1. it is killed when the monitor ends; is closed to other processes (not dumpable); keeps nothing open but its line to the
//!    monitor;
//! 2. takes namespaces of its own for System V objects and, with `network = no`, network;
//! 3. prepares the tree in a namespace of mounts that is locked (`tree`, which has its own list); hands all of it to the monitor,
//!    with what the next runs of the kind may share, and stands by.
//!
//! The monitor (root, the host's namespaces; before its first confined run it takes out of the bounding set, for good, what
//! no profile of its policy has, and closes itself to other processes):
//!
//! 4. sees that every listed capability is there to be given, and those that its own work takes (`needs`), and chooses the
//!    means for each limit (`limits`);
//! 5. makes the control group, if a limit needs one, and the pipe; takes the spare init, or has one made;
//! 6. forks the script's process into that init's process namespace.
//!
//! The script's process, still root:
//!
//! 7. own session, own keyring, standard descriptors, default signals;
//! 8. takes copies of the writable paths as they are on the host now (`tree`); enters the control group;
//! 9. goes back to the host's network, which the executor has left, unless the profile has `network = no`; joins the init's
//!    namespaces, with the init's root directory; takes one of its own for the host name;
//! 10. completes the tree (`tree`), and gives up its rights (`rights`):
//! 11. limits on the processes of its account, and on signals that wait for it;
//! 12. Landlock rules are prepared, while every path can still be opened;
//! 13. supplementary groups; uid 0 becomes a user like any other (secure bits, locked); the bounding set is cut as far
//!     as the kernel counts; group, then user;
//! 14. `no_new_privs`, if the profile has it;
//! 15. the Landlock rules; 16. the filter of system calls. Both need `no_new_privs` or a capability, and profiles without
//!     the first are confined no less: so the capabilities go last;
//! 17. permitted, effective and inheritable sets become exactly the profile's, then the ambient one;
//! 18. ids, groups, sets, secure bits and `no_new_privs` are read back: any difference refuses the run;
//! 19. limits on its open files: last, since the steps before need some;
//! 20. working directory and umask; the file is still the one that was judged; every other descriptor is closed; exec.
//!
//! A step that fails ends the run before the script's first instruction, with an outcome that names the step.
//!
//! # Its end
//!
//! When the script's process ends, the monitor buries it, and sees that nobody else is left in the namespace; if somebody is,
//! it has init kill whoever it is and say when they are gone, or where it may be a sibling that the script's process has made
//! (`CLONE_PARENT`), kills init and waits: **a daemon that a script leaves behind does not outlive a confined
//! run.** Then it tells the outcome and kills init. When the run is to end, init passes a request to end to everyone, and after
//! the grace the monitor kills init, which is killing everyone at once. The kernel lets the monitor learn of init's end only
//! when the namespace is empty. The kernel takes its time over the namespace's mounts after that, and the monitor goes on to its
//! next order meanwhile; it waits for the end of all only where a control group is to be removed.

use std::cell::OnceCell;
use std::io;
use std::time::{Duration, Instant};

use super::confinement::Confinement;
use super::fence::Fence;
use super::household::Household;
use super::inits::{Init, fail};
use super::kind::Kind;
use super::limits::{Means, means};
use super::reasons::with;
use super::{needs, offer, rights, tree};
use crate::sys::cgroup::{self, Controllers, Delegation, Group};
use crate::sys::mount::OwnProcesses;
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, End, Fault, Fork, Pid, Signals, Spawn, Spawned};
use crate::sys::seccomp::{Filter, Filters};
use crate::sys::{capability, descriptors, pipe, shortage, spaces};
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

/// Clears away what monitors that have ended have left: the control groups of their runs. Returns whether none is left but
/// those of monitors that are `known`.
pub(super) fn sweep(known: &dyn Fn(Pid) -> bool) -> bool {
    Delegation::find().map_or(true, |here| here.sweep(known))
}

/// The namespace of a run, from outside.
#[derive(Debug)]
pub(super) struct Space {
    init: Init,
    /// Whether init has ended, and so everyone.
    deserted: bool,
    /// Whether the script's process had no time left to become its program.
    late: bool,
    group: Option<(Delegation, Group)>,
    memory: Option<u64>,
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
    /// How long the order's script may take to be started.
    pub(super) patience: Duration,
}

/// How long any script may take to be started: the monitor, whose memory its process borrows until then, hears nothing
/// meanwhile. It takes a file system that does not answer, or a host that is busy beyond measure.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

impl<'a> Outside<'a> {
    /// Has the household make a spare for the next order, if there was a confined one before.
    pub(super) fn provide(self, household: &Household) {
        if let Some(known) = self.lasting.get() {
            household.provide(&known.processes);
        }
    }

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
    /// Those that it has for its own work.
    held: capability::Set,
    /// The filters of system calls. One that there is none of fails the run that wants it.
    filters: Filters,
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
        // The script's process borrows this one's memory until exec, and gives up rights meanwhile.
        process::let_nobody_look().map_err(failed("parent-death-signal"))?;
        let available = capability::available().map_err(failed("caps"))?;
        let processes = OwnProcesses::find().map_err(failed("process-namespace"))?;
        let held = capability::held().map_err(failed("caps"))?;
        Ok(Self { processes, available, held, filters: Filters::default() })
    }
}

fn failed(step: &'static str) -> impl Fn(io::Error) -> Outcome {
    move |error| fail(step, error.to_string())
}

/// The script's process was not.
fn unmade(error: &io::Error) -> Outcome {
    fail("fork", with(error, shortage::of_processes(error)))
}

/// Starts a plan's script in its confinement. `guard` hears of the first process of its namespace before the script's is in that.
///
/// # Errors
/// The outcome: nothing runs, and which step failed.
pub(super) fn start(
    confinement: &Confinement,
    spawn: &Spawn,
    outside: Outside<'_>,
    household: &Household,
    guard: &dyn Fn(Pid),
) -> Result<(Spawned, Space), Outcome> {
    let Lasting { processes, available, held, filters } = outside.lasting()?;
    let able = offer::caps(confinement, *available).and_then(|()| needs::met_for(confinement, *held));
    able.map_err(|lacking| fail(lacking.key, lacking.why))?;
    let delegated = || Delegation::find().and_then(|here| here.controllers()).unwrap_or_default();
    // What cannot be known is tried, and the kernel says so then.
    let most_files = || descriptors::most().unwrap_or(u64::MAX);
    let means = means(confinement, most_files, delegated).map_err(|limit| fail(limit.key, limit.why))?;
    let group = means.group.map(|limits| {
        let here = Delegation::find()?;
        let group = here.create_for_run(limits)?;
        Ok((here, group))
    });
    let group = group.transpose().map_err(failed("control-group"))?;
    let filter = filters.get(confinement.calls());
    let work = Work {
        confinement,
        means,
        group: group.as_ref(),
        network: outside.network,
        filter,
        spawn,
        patience: outside.patience,
    };
    let kind = Kind::of(confinement);
    let (init, ahead) = surrounded(confinement, (processes, kind), household)?;
    guard(init.pid);
    let (spawned, init) = match launch(&work, &init, processes) {
        Ok(spawned) => (spawned, init),
        // It may have been killed while nobody needed it.
        Err(_) if ahead => {
            household.see_out(init.pid);
            let init = household.new_init(processes, kind)?;
            guard(init.pid);
            let launched = launch(&work, &init, processes).inspect_err(|_| household.see_out(init.pid));
            (launched.map_err(|error| unmade(&error))?, init)
        }
        Err(error) => {
            household.see_out(init.pid);
            return Err(unmade(&error));
        }
    };
    let (spawned, late) = spawned;
    if late {
        household.spoil();
    }
    Ok((spawned, Space { init, deserted: false, late, group, memory: confinement.profile().memory_max }))
}

/// The namespace of a run, with what it finds of the agent's own now. What is moved or replaced while that is looked at, as our
/// own file is at an upgrade, is looked at anew.
fn surrounded(
    confinement: &Confinement,
    (processes, kind): (&OwnProcesses, Kind),
    household: &Household,
) -> Result<(Init, bool), Outcome> {
    let mut looks = 1;
    loop {
        let fence = Fence::around(confinement).map_err(failed("hidden"));
        match fence.and_then(|fence| household.init(processes, kind, fence)) {
            Err(Outcome::NotConfined { step, .. }) if step == "hidden" && looks < LOOKS => looks += 1,
            made => return made,
        }
    }
}

/// What a confined run is made of.
struct Work<'a> {
    /// The order's and the profile's own words.
    confinement: &'a Confinement,
    /// How its limits are enforced.
    means: Means,
    /// The control group, if it has one.
    group: Option<&'a (Delegation, Group)>,
    /// The network that the executor has left.
    network: Option<&'a HostNetwork>,
    /// The filter of system calls that it is to have, or why there is none.
    filter: Option<&'a io::Result<Filter>>,
    /// The script.
    spawn: &'a Spawn,
    /// How long its process may take.
    patience: Duration,
}

/// Makes the script's process. Whether it took all the time that it had to become its program.
fn launch(work: &Work<'_>, init: &Init, processes: &OwnProcesses) -> io::Result<(Spawned, bool)> {
    let (verdict, failure) = pipe::pipe()?;
    let begun = Instant::now();
    let own = process::own_id();
    let become_script = || work.spawn.become_program(own, &failure, || work.confine(init)).report(&failure);
    let pid = processes.fork_into(&init.spaces, || {
        if work.group.is_none() {
            return process::fork_for_exec(become_script);
        }
        // Whoever the kernel kills in a group that is out of memory, it kills with everyone who shares its memory.
        match process::fork()? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => {
                become_script();
                process::end(FAILED)
            }
        }
    })?;
    Ok((Spawned { pid, verdict }, begun.elapsed() >= work.patience))
}

/// How often the agent's own places are looked at before a run is refused because they never stay as they are.
const LOOKS: u32 = 5;
/// Status of a script's process that did not become its program. The monitor learns the reason from the pipe instead.
const FAILED: i32 = 127;

impl Work<'_> {
    /// Steps 8 to 19.
    fn confine(&self, init: &Init) -> Result<(), Fault> {
        let Self { confinement, means, group, network, filter, spawn, patience } = self;
        process::end_unless_program_within(*patience).map_err(Fault::confining("process-namespace"))?;
        process::set_umask(0);
        let copies = tree::take(confinement, spawn.program(), init.kind)?;
        if let Some((_, group)) = group {
            group.enter().map_err(Fault::confining("control-group"))?;
        }
        if let Some(host) = network.filter(|_| init.kind.network) {
            host.enter().map_err(Fault::confining("network"))?;
        }
        init.spaces.join().map_err(Fault::confining("namespaces"))?;
        spaces::own_host_name().map_err(Fault::confining("namespaces"))?;
        let groups = group.map(|(here, _)| here.mount());
        tree::complete(confinement, copies, (init.kind, &init.blinds), groups)?;
        rights::give_up(spawn.program(), confinement, *means, *filter)
    }
}

impl Space {
    /// Asks everyone in it to end.
    pub(super) fn terminate(&self) {
        if !self.deserted {
            self.init.terminate();
        }
    }

    /// Ends everyone in it.
    pub(super) fn kill(&self) {
        if !self.deserted {
            self.init.kill();
        }
        // Init's death is enough; this reaches whoever the kernel has not got round to yet.
        drop(self.group.as_ref().map(|(_, group)| group.kill()));
    }

    /// Its first process.
    pub(super) const fn init(&self) -> &Init {
        &self.init
    }

    /// Takes note of the end of a process that was waited for, if it is init's, and so everyone's. Whether it is.
    pub(super) fn is_deserted_by(&mut self, pid: Pid) -> bool {
        let own = pid == self.init.pid;
        self.deserted |= own;
        own
    }

    /// Whether the script's process had no time left to become its program.
    pub(super) const fn was_late(&self) -> bool {
        self.late
    }

    /// Whether init has ended.
    pub(super) const fn is_deserted(&self) -> bool {
        self.deserted
    }

    /// Whether something of it outlasts it that has to be cleared away.
    pub(super) const fn is_to_be_cleared(&self) -> bool {
        self.group.is_some()
    }

    /// Has init leave, and with it everything that the run had. Only a control group has to be empty before it can be removed.
    pub(super) fn see_out(self, signals: &Signals, household: &Household) {
        if !self.deserted {
            household.see_out(self.init.pid);
        }
        household.settle(self.group.is_some(), signals);
    }

    /// What became of a script that ended like this.
    pub(super) fn judge(&self, end: End) -> Outcome {
        let ran_out = || self.group.as_ref().is_some_and(|(_, group)| group.ran_out_of_memory());
        match (end, self.memory) {
            (End::Signalled(9), Some(limit)) if ran_out() => Outcome::OutOfMemory { limit },
            (End::Signalled(signal), _) => Outcome::Signalled { signal },
            (End::Exited(code), _) => Outcome::Exited { code },
        }
    }
}
