//! The monitor: one process an order, from its first byte to its one outcome. One that has done with its order and is
//! as good as new (`post` says when) may be given another.
//!
//! It lives in a session of its own and is deaf to signals, so that neither the end of the executor nor that of the
//! front-end ends it: what they do to an order they do through its connection. It adopts the orphans among the
//! descendants of a script that is not confined, so that it can find and end all of them.
//!
//! A script that ends by itself ends the order, at once and with its own status. Descendants that it leaves behind
//! (it may have started a daemon) are left alone, as they always were. A script that is cancelled or out of time is
//! another matter: that outcome is told when the last descendant is gone, not before. Where the monitor itself is killed, the
//! kernel ends what is confined, and the service what is not; either way the service holds the locks of a job until that is done
//! (`serve`).

use std::cell::OnceCell;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use super::confine::{self, Outside, Space};
use super::confinements::Confinements;
use super::contents;
use super::decide::{Plan, decide};
use super::environment::{environment, environment_of, traced};
use super::event::{Audit, ExecEvent};
use super::host::Remembered;
use super::household::Household;
use super::intake::{self, Asked, Intake, Job};
use super::ledger::Place;
use super::policy::Policy;
use super::post::{self, Next, Post};
use super::printed::Printed;
use super::report;
use super::streams::Null;
use super::supervision::{Ended, Supervision, no_process, not_started};
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, Family, Pid, Run, Signal, Signals, Spawn, Spawned};
use crate::sys::user::Uid;
use crate::sys::{clock, descriptors, fdpass, user};
use crate::wire::control::{Control, Reloaded};
use crate::wire::order::{Mode, Order, Report};
use crate::wire::outcome::{Noted, Outcome};
use crate::wire::refusal::Refusal;

/// How long a front-end may take to send its order.
const INTAKE: Duration = Duration::from_secs(5);

/// How many files a confined script may open, unless its profile says so or the executor's hard limit is lower: more than that
/// select(2) does not take.
const FILES: u64 = 1024;

/// What a monitor has from its executor, for all of its orders.
pub(super) struct Means<'a> {
    /// What it decides by.
    pub(super) policy: &'a Policy,
    /// Where it tells its events.
    pub(super) audit: Audit<'a>,
    /// The network that the executor has left.
    pub(super) network: Option<&'a HostNetwork>,
    /// What it hands the wish for a reload to, where connections are not the executor's own.
    pub(super) control: Option<OwnedFd>,
    /// As many scripts as may run (this many) run already.
    pub(super) full: Option<usize>,
    /// Where it notes what it is busy with, if that is to be had.
    pub(super) place: Option<Place>,
}

impl Means<'_> {
    /// Whose orders they are, where a connection's own word does not count: a front-end that hands connections over instead of
    /// making them chooses who is at their other end.
    fn front_end(&self) -> Option<Uid> {
        self.policy.confinements.as_ref().filter(|_| self.control.is_none()).and_then(Confinements::agent)
    }
}

/// Does what a connection asks for, and then what those ask for that `post` brings. The process ends afterwards.
pub(super) fn run(connection: OwnedFd, means: &Means<'_>, post: Option<&Post>) {
    let signals = match settle_down(means.policy) {
        Ok(signals) => signals,
        Err(error) => {
            Ending::new(&connection, means).tell(&not_started("monitor", &error));
            return;
        }
    };
    let (lasting, people) = (OnceCell::new(), Remembered::new(clock::now));
    // One that is for a single order needs none, nor does one that confines nothing.
    let spares = post.is_some() && means.policy.confinements.is_some();
    let (household, null) = (Household::new(spares), Null::default());
    let granted = means.policy.confinements.as_ref().map(Confinements::granted).unwrap_or_default();
    let outside = Outside { network: means.network, lasting: &lasting, granted, patience: confine::PATIENCE };
    let family = if means.policy.confinements.is_none() { Family::own() } else { None };
    mark(family, None);
    let mut turn = Next::Given(connection);
    loop {
        let kept =
            Kept { signals: &signals, outside, people: &people, household: &household, null: &null, post, family };
        let stays = serve(&turn, means, kept);
        let (Next::Given(connection) | Next::Kept(connection)) = turn;
        let connection = stays.then_some(connection);
        // One that has somebody left to look after is not as good as new.
        let alone = household.take_note(&signals);
        let Some(post) = post.filter(|post| alone && !household.is_spoilt() && post.is_open()) else {
            connection.iter().for_each(post::part);
            return;
        };
        outside.provide(&household);
        means.audit.settle(Duration::ZERO);
        match post.next(connection, &signals, &household) {
            Some(next) => turn = next,
            None => return,
        }
    }
}

/// What a monitor keeps from order to order.
#[derive(Clone, Copy)]
struct Kept<'a> {
    signals: &'a Signals,
    outside: Outside<'a>,
    people: &'a Remembered,
    household: &'a Household,
    null: &'a Null,
    post: Option<&'a Post>,
    /// Whose runs are marked so that what is left of them can be found; those that are not confined.
    family: Option<Family>,
}

impl Kept<'_> {
    /// Marks what is started from now on as this order's. The time of that.
    fn begin(self, order: &Order) -> Instant {
        mark(self.family, Some(Run::of(order.request().as_str().as_bytes())));
        Instant::now()
    }

    /// An order is over. If anybody is left, its script has ended by itself, and they are left alone.
    fn leave_others(self) {
        if self.family.is_some() && process::has_children() {
            // Without /proc nobody can be found, now or later.
            drop(process::free_others());
        }
    }

    /// Whether a connection can be kept behind the end of this order: not where something is to be cleared away first, which
    /// a fresh monitor would not wait for.
    fn stays(self, order: &Order, space: Option<&Space>) -> bool {
        let clears = space.is_some_and(Space::is_to_be_cleared);
        let free = self.post.is_some_and(Post::is_open) && !self.household.is_spoilt();
        order.is_kept() && order.mode() == Mode::Attached && free && !clears
    }
}

/// Does what one connection asks for. Whether it is kept for another order.
fn serve(turn: &Next, means: &Means<'_>, kept: Kept<'_>) -> bool {
    let Means { policy, audit, full, place, .. } = means;
    let audit = *audit;
    let (Next::Given(connection) | Next::Kept(connection)) = turn;
    let asked = intake::take(connection, means.front_end(), Instant::now() + INTAKE);
    let intake = match asked.and_then(|asked| only_an_order(connection, means, asked)) {
        Ok(Some(intake)) => intake,
        Ok(None) => return false,
        Err(refusal) => return Ending::new(connection, means).tell(&Outcome::Refused(refusal)),
    };
    let Intake { order, stdio, job } = intake;
    // Until the outcome is told.
    let noted = place.as_ref().map(|place| place.note(&order));
    // Looked at now that the order is here, so that the answer is no older than the order; and noted, so that an executor
    // that lets go of the line and finds nothing noted then knows that nothing will be carried out.
    if matches!(turn, Next::Kept(_)) && kept.post.is_none_or(Post::is_let_go) {
        drop(noted);
        drop(report::send_now(connection, &Report::Declined));
        return false;
    }
    let mut ending = Ending { order: Some(&order), stays: kept.stays(&order, None), ..Ending::new(connection, means) };
    let mut cancel = None;
    if let Some(Job { status, lock, cancel: fifo }) = job {
        (ending.status, ending.lock, cancel) = (Some(status), Some(lock), Some(fifo));
    }
    let plan = match full.map_or_else(|| decide(&order, policy, kept.people), |most| Err(busy(most))) {
        Ok(plan) => plan,
        Err(refusal) => return ending.tell(&Outcome::Refused(refusal)),
    };
    (ending.profile, ending.unconfined) = (Some(plan.profile()), plan.confinement().is_none());
    let printed = cancel.as_ref().map(|_| Printed::new(&stdio, policy.output_max, Instant::now()));
    let printed = match printed.transpose() {
        Ok(printed) => printed,
        Err(error) => return ending.tell(&not_started("output", &error)),
    };
    let started = kept.begin(&order);
    match start(&plan, stdio, kept, &|init| ending.guard(kept.post, init)) {
        Err(outcome) => ending.tell(&outcome),
        Ok((spawned, space)) => {
            ending.pid = Some(spawned.pid);
            kept.outside.provide(kept.household);
            let mut supervision = Supervision::new(&plan, &order, (spawned, started), (kept.signals, kept.household));
            (supervision.space, supervision.cancel, supervision.printed) = (space, cancel, printed);
            let Ended { outcome, space, printed, start } = supervision.until_the_end(connection, audit);
            ending.short = printed.is_some_and(|printed| printed.settle(&outcome));
            kept.leave_others();
            (ending.start, ending.stays) = (start, kept.stays(&order, space.as_ref()));
            let stays = ending.tell(&outcome);
            drop(noted);
            if let Some(space) = space {
                space.see_out(kept.signals, kept.household);
            }
            stays
        }
    }
}

/// The refusal of one order too many.
#[must_use]
pub fn busy(most: usize) -> Refusal {
    let text = format!("{most} scripts are running, which is as many as max_children allows: try again later");
    Refusal::new("busy", text)
}

/// The order that was asked for; nothing if it was a word of control, which is done then.
fn only_an_order(connection: &OwnedFd, means: &Means<'_>, asked: Asked) -> Result<Option<Intake>, Refusal> {
    let word = match asked {
        Asked::Order(intake) => return Ok(Some(intake)),
        Asked::Control(word) => word,
    };
    if let Some(contents) = contents::asked(word, means.policy) {
        means.place.iter().for_each(Place::is_done);
        // A front-end that is gone needs no answer.
        drop(report::tell_contents(connection, &contents));
        return Ok(None);
    }
    let Some(control) = &means.control else {
        return Err(intake::malformed("this connection is for orders alone"));
    };
    // Nothing of it runs, and whoever hears the answer finds the place free.
    means.place.iter().for_each(Place::is_done);
    match word {
        // A front-end that is gone needs no answer.
        Control::Hello => drop(report::answer_now(connection, &Reloaded::Done)),
        // An executor that is gone gives none: the connection closes.
        Control::Reload => drop(fdpass::send(control, b"r", &[connection.as_fd()])),
        Control::Order => return Err(intake::malformed("a connection is an order by itself")),
        Control::Upgrade => return Err(intake::malformed("a service is upgraded by whoever has started it")),
        Control::Versions | Control::Digests => return Err(intake::malformed("it is a root executor that knows them")),
    }
    Ok(None)
}

/// Marks this process and what it starts, where runs are marked. One that cannot be is told of by the service.
fn mark(family: Option<Family>, run: Option<Run>) {
    if let Some(family) = family {
        drop(family.mark_monitor(run));
    }
}

/// Leaves everything that could end this process by accident.
fn settle_down(policy: &Policy) -> std::io::Result<Signals> {
    process::own_session()?;
    if policy.confinements.is_some() {
        // The executor has what its own work needs.
        descriptors::put_back(FILES)?;
    }
    process::block_all()?;
    process::default_for_good();
    Signals::collect(&[Signal::SIGCHLD])
}

/// `guard` is called with the first process of the run's namespace, if it has one, before anything of it runs.
fn start(
    plan: &Plan,
    stdio: [OwnedFd; 3],
    kept: Kept<'_>,
    guard: &dyn Fn(Option<Pid>),
) -> Result<(Spawned, Option<Space>), Outcome> {
    let stdio = if user::is_root() { kept.null.instead_of_the_hosts(stdio) } else { Ok(stdio) };
    let stdio = stdio.map_err(|error| not_started("streams", &error))?;
    let own = |name: &str| std::env::var_os(name);
    let spawn = Spawn {
        path: plan.program().clone(),
        argv: plan.argv().to_vec(),
        environment: traced(environment(own), plan.trace()),
        stdio,
        expected: plan.expected(),
        // A script without its monitor is one that nobody can end and whose end nobody learns.
        dies_with_parent: true,
        without_keys: false,
        directory: "/".into(),
        umask: 0o022,
    };
    let patience = plan.time_limit().unwrap_or(confine::PATIENCE).min(confine::PATIENCE);
    let Some(confinement) = plan.confinement() else {
        // **Invariant:** nothing runs as root by accident.
        if user::is_root() {
            let reason = "a root executor runs nothing without a profile that it applies".to_owned();
            return Err(Outcome::NotConfined { step: "profile".to_owned(), reason });
        }
        // Who is confined falls to the first process of its namespace, and to nobody outside.
        process::adopt_orphans().map_err(|error| not_started("monitor", &error))?;
        guard(None);
        let (spawned, late) = spawn.start(patience).map_err(|error| no_process(&error))?;
        if late {
            kept.household.spoil();
        }
        return Ok((spawned, None));
    };
    let spawn = Spawn {
        environment: traced(environment_of(confinement), plan.trace()),
        // Its namespace ends with its init, and that with this process.
        dies_with_parent: false,
        without_keys: confinement.calls().keeps_from_keys(),
        directory: confinement.profile().working_directory.clone(),
        umask: confinement.profile().umask,
        ..spawn
    };
    let outside = Outside { patience, ..kept.outside };
    let guard = |init| guard(Some(init));
    confine::start(confinement, &spawn, outside, kept.household, &guard).map(|(spawned, space)| (spawned, Some(space)))
}

/// Where an outcome is told, with what is known about the order by then.
struct Ending<'a> {
    connection: &'a OwnedFd,
    audit: Audit<'a>,
    place: Option<&'a Place>,
    order: Option<&'a Order>,
    profile: Option<&'a str>,
    unconfined: bool,
    pid: Option<Pid>,
    /// The start, if it was not told yet: it is then told with the end.
    start: Option<Report>,
    /// The connection is kept.
    stays: bool,
    status: Option<OwnedFd>,
    lock: Option<OwnedFd>,
    /// The disk had no room for all that a job printed.
    short: bool,
}

impl<'a> Ending<'a> {
    fn new(connection: &'a OwnedFd, means: &'a Means<'_>) -> Self {
        Self {
            connection,
            audit: means.audit,
            place: means.place.as_ref(),
            order: None,
            profile: None,
            unconfined: false,
            pid: None,
            start: None,
            stays: false,
            status: None,
            lock: None,
            short: false,
        }
    }

    /// Has the service hold a job's locks, too, should this monitor be killed while processes of the job's are still there.
    fn guard(&self, post: Option<&Post>, init: Option<Pid>) {
        if let (Some(post), Some(lock), Some(status)) = (post, &self.lock, &self.status) {
            post.hand_over([lock, status], init);
        }
    }

    /// Status file first: whoever hears the report will find the file complete, and whoever finds it free (it is the
    /// last to be let go) may start the script anew, since this monitor counts no longer as one at work. Whether the
    /// connection is kept.
    fn tell(self, outcome: &Outcome) -> bool {
        let noted = Noted { outcome: outcome.clone(), short_of_room: self.short };
        let written = self.status.as_ref().map_or(Ok(()), |status| report::write_status(status, &noted));
        self.place.into_iter().for_each(Place::is_done);
        // Whoever is forked at this moment has them too, until it closes everything.
        for held in [self.lock, self.status].into_iter().flatten().map(std::fs::File::from) {
            drop(held.unlock());
        }
        if let (Err(reason), Some(order)) = (&written, self.order) {
            self.audit.tell(&ExecEvent::StatusLost { request: order.request(), reason });
        }
        // A front-end that is gone has no more use for it; the audit line has it in any case.
        let last = if self.stays { Report::Free } else { Report::Ended };
        let reports: Vec<Report> = self.start.into_iter().chain([last(outcome.clone())]).collect();
        let stays = report::send(self.connection, &reports).is_ok() && self.stays;
        let Self { order, profile, unconfined, .. } = self;
        let pid = self.pid.map(Pid::as_raw);
        self.audit.tell(&ExecEvent::Ended { order, profile, unconfined, pid, outcome });
        stays
    }
}
