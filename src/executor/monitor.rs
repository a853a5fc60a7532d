//! The monitor: one process an order, from its first byte to its one outcome. One that has done with its order and is
//! as good as new (`post` says when) may be given another.
//!
//! It lives in a session of its own and is deaf to signals, so that neither the end of the executor nor that of the
//! front-end ends it: what they do to an order they do through its connection. It adopts the orphans among the
//! script's descendants, so that it can find and end all of them.
//!
//! A script that ends by itself ends the order, at once and with its own status. Descendants that it leaves behind
//! (it may have started a daemon) are left alone, as they always were. A script that is cancelled or out of time is
//! another matter: that outcome is told when the last descendant is gone, not before.

use std::cell::OnceCell;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::confine::{self, Outside, Space};
use super::decide::{Plan, decide};
use super::environment::{environment, environment_of};
use super::event::{Audit, ExecEvent};
use super::host::Remembered;
use super::intake::{self, Asked, Intake, Job};
use super::policy::Policy;
use super::post::Post;
use super::report;
use super::watch::{Action, Watch};
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, End, Failure, Pid, Reaped, Signal, Signals, Spawn, Spawned};
use crate::sys::{fdpass, poll, user};
use crate::wire::control::{Control, Reloaded};
use crate::wire::frame;
use crate::wire::order::{Command, Mode, Order, Report};
use crate::wire::outcome::Outcome;
use crate::wire::refusal::Refusal;

/// How long a front-end may take to send its order.
const INTAKE: Duration = Duration::from_secs(5);
/// Largest command, in bytes.
const COMMAND: usize = 64;

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
}

/// Does what a connection asks for, and then what those ask for that `post` brings. The process ends afterwards.
pub(super) fn run(connection: OwnedFd, means: &Means<'_>, post: Option<Post>) {
    let signals = match settle_down() {
        Ok(signals) => signals,
        Err(error) => return Ending::new(&connection, means.audit).tell(&not_started("monitor", &error)),
    };
    let (processes, people) = (OnceCell::new(), Remembered::default());
    let outside = Outside { network: means.network, processes: &processes };
    let mut connection = connection;
    loop {
        serve(&connection, means, Kept { signals: &signals, outside, people: &people });
        drop(connection);
        // One that has somebody left to look after is not as good as new.
        match post.as_ref().filter(|_| is_alone(&signals)).and_then(Post::next) {
            Some(next) => connection = next,
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
}

/// Whether no descendant is left. All who have ended are taken note of.
fn is_alone(signals: &Signals) -> bool {
    while matches!(signals.next(), Ok(Some(_))) {}
    loop {
        match process::reap() {
            Ok(Reaped::Child(..)) => {}
            Ok(Reaped::Nobody) => return true,
            Ok(Reaped::Running) | Err(_) => return false,
        }
    }
}

fn serve(connection: &OwnedFd, means: &Means<'_>, kept: Kept<'_>) {
    let Means { policy, audit, control, full, .. } = means;
    let audit = *audit;
    let asked = intake::take(connection, Instant::now() + INTAKE);
    let intake = match asked.and_then(|asked| only_an_order(connection, control.as_ref(), asked)) {
        Ok(Some(intake)) => intake,
        Ok(None) => return,
        Err(refusal) => return Ending::new(connection, audit).tell(&Outcome::Refused(refusal)),
    };
    let Intake { order, stdio, job } = intake;
    let mut ending = Ending { order: Some(&order), ..Ending::new(connection, audit) };
    let mut cancel = None;
    if let Some(Job { status, lock, cancel: fifo }) = job {
        (ending.status, ending.lock, cancel) = (Some(status), Some(lock), Some(fifo));
    }
    let refused = |refusal| Outcome::Refused(refusal);
    let plan = match full.map_or_else(|| decide(&order, policy, kept.people), |most| Err(busy(most))) {
        Ok(plan) => plan,
        Err(refusal) => return ending.tell(&refused(refusal)),
    };
    ending.profile = Some(plan.profile());
    match start(&plan, stdio, kept.outside) {
        Err(outcome) => ending.tell(&outcome),
        Ok((spawned, space)) => {
            ending.pid = Some(spawned.pid);
            let supervision = Supervision { space, cancel, ..Supervision::new(&plan, &order, spawned, kept.signals) };
            let (outcome, space) = supervision.until_the_end(connection, audit);
            ending.tell(&outcome);
            if let Some(space) = space {
                space.see_out(kept.signals);
            }
        }
    }
}

/// The refusal of one order too many.
pub(super) fn busy(most: usize) -> Refusal {
    let text = format!("{most} scripts are running, which is as many as max_children allows: try again later");
    Refusal::new("busy", text)
}

/// The order that was asked for; nothing if it was a word of control, which is done then.
fn only_an_order(connection: &OwnedFd, control: Option<&OwnedFd>, asked: Asked) -> Result<Option<Intake>, Refusal> {
    let (word, Some(control)) = (
        match asked {
            Asked::Order(intake) => return Ok(Some(intake)),
            Asked::Control(word) => word,
        },
        control,
    ) else {
        return Err(intake::malformed("this connection is for orders alone"));
    };
    match word {
        // A front-end that is gone needs no answer.
        Control::Hello => drop(report::answer_now(connection, &Reloaded::Done)),
        // An executor that is gone gives none: the connection closes.
        Control::Reload => drop(fdpass::send(control, b"r", &[connection.as_fd()])),
        Control::Order => return Err(intake::malformed("a connection is an order by itself")),
    }
    Ok(None)
}

/// Leaves everything that could end this process by accident, and becomes the one that orphans fall to.
fn settle_down() -> std::io::Result<Signals> {
    process::own_session()?;
    process::block_all()?;
    process::adopt_orphans()?;
    Signals::collect(&[Signal::SIGCHLD])
}

fn start(plan: &Plan, stdio: [OwnedFd; 3], outside: Outside<'_>) -> Result<(Spawned, Option<Space>), Outcome> {
    let own = |name: &str| std::env::var_os(name);
    let spawn = Spawn {
        path: plan.program().clone(),
        argv: plan.argv().to_vec(),
        environment: environment(own),
        stdio,
        expected: plan.expected(),
        // A script without its monitor is one that nobody can end and whose end nobody learns.
        dies_with_parent: true,
        directory: "/".into(),
        umask: 0o022,
    };
    let Some(confinement) = plan.confinement() else {
        // **Invariant:** nothing runs as root by accident.
        if user::is_root() {
            let reason = "a root executor runs nothing without a profile that it applies".to_owned();
            return Err(Outcome::NotConfined { step: "profile".to_owned(), reason });
        }
        return spawn.start().map(|spawned| (spawned, None)).map_err(|error| not_started("fork", &error));
    };
    let spawn = Spawn {
        environment: environment_of(confinement, own),
        // Its namespace ends with its init, and that with this process.
        dies_with_parent: false,
        directory: confinement.profile().working_directory.clone(),
        umask: confinement.profile().umask,
        ..spawn
    };
    confine::start(confinement, spawn, outside).map(|(spawned, space)| (spawned, Some(space)))
}

fn not_started(step: &str, error: &std::io::Error) -> Outcome {
    Outcome::NotStarted { step: step.to_owned(), reason: error.to_string() }
}

/// Where an outcome is told, with what is known about the order by then.
struct Ending<'a> {
    connection: &'a OwnedFd,
    audit: Audit<'a>,
    order: Option<&'a Order>,
    profile: Option<&'a str>,
    pid: Option<Pid>,
    status: Option<OwnedFd>,
    lock: Option<OwnedFd>,
}

impl<'a> Ending<'a> {
    fn new(connection: &'a OwnedFd, audit: Audit<'a>) -> Self {
        Self { connection, audit, order: None, profile: None, pid: None, status: None, lock: None }
    }

    /// Status file first: whoever hears the report will find the file complete, and whoever finds it free (it is the
    /// last to be let go) may start the script anew.
    fn tell(self, outcome: &Outcome) {
        let written = self.status.as_ref().map_or(Ok(()), |status| report::write_status(status, outcome));
        drop((self.lock, self.status));
        if let (Err(reason), Some(order)) = (&written, self.order) {
            (self.audit)(&ExecEvent::StatusLost { request: order.request(), reason });
        }
        // A front-end that is gone has no more use for it; the audit line has it in any case.
        drop(report::send(self.connection, &Report::Ended(outcome.clone())));
        let pid = self.pid.map(Pid::as_raw);
        (self.audit)(&ExecEvent::Ended { order: self.order, profile: self.profile, pid, outcome });
    }
}

/// A script between its start and its end.
struct Supervision<'a> {
    plan: &'a Plan,
    order: &'a Order,
    leader: Pid,
    /// The namespace whose first process `leader` is; none for a script that is not confined.
    space: Option<Space>,
    /// Whether the namespace's init may still tell something.
    attentive: bool,
    signals: &'a Signals,
    /// Until exec has succeeded or failed.
    verdict: Option<OwnedFd>,
    watch: Watch,
    /// What has arrived of a command.
    heard: Vec<u8>,
    /// Whether anything that the front-end may still say matters.
    listening: bool,
    /// A byte in it cancels, whoever has written it; until then.
    cancel: Option<OwnedFd>,
}

impl<'a> Supervision<'a> {
    fn new(plan: &'a Plan, order: &'a Order, spawned: Spawned, signals: &'a Signals) -> Self {
        let Spawned { pid, verdict } = spawned;
        let watch = Watch::new(plan.time_limit(), plan.kill_grace(), Instant::now());
        let heard = Vec::with_capacity(COMMAND);
        let verdict = Some(verdict);
        let (space, cancel) = (None, None);
        Self {
            plan,
            order,
            leader: pid,
            space,
            attentive: true,
            signals,
            verdict,
            watch,
            heard,
            listening: true,
            cancel,
        }
    }

    /// The outcome, and the namespace if it is still to be seen out.
    fn until_the_end(mut self, connection: &OwnedFd, audit: Audit<'_>) -> (Outcome, Option<Space>) {
        loop {
            let limit = self.watch.wakes().map(|at| at.saturating_duration_since(Instant::now()));
            let verdict = self.verdict.as_ref().map(AsFd::as_fd);
            let peer = self.listening.then(|| connection.as_fd());
            let fifo = self.cancel.as_ref().map(AsFd::as_fd);
            // The kernel refuses to wait only when it has no memory for four entries; then we come round again.
            // A script that is being ended has no say any more.
            let ear = self.space.as_ref().filter(|_| self.attentive && self.watch.why().is_none()).map(Space::ear);
            let sources = [verdict, Some(self.signals.as_fd()), peer, fifo, ear];
            let [verdict, child, peer, fifo, told] =
                poll::readable(sources, limit).unwrap_or_default().map(|ready| ready.readable);
            let ended = if verdict { self.learn_verdict(connection) } else { None };
            let ended = ended.or_else(|| if told { self.learn_end(connection) } else { None });
            if let Some(outcome) = ended.or_else(|| if child { self.reap(connection) } else { None }) {
                return (outcome, self.space);
            }
            let asked = if fifo { self.end_it() } else { Action::Wait };
            self.act(asked, audit);
            let asked = if peer { self.hear(connection) } else { Action::Wait };
            self.act(asked, audit);
            let timed = self.watch.tick(Instant::now());
            self.act(timed, audit);
        }
    }

    /// Exec has succeeded, and is reported, or failed, and is the outcome.
    fn learn_verdict(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        let failure = match Failure::read(self.verdict.take()?) {
            Ok(None) => {
                // If it does not arrive, the front-end is gone, and we hear of that next.
                drop(report::send(connection, &Report::Started { pid: self.leader.as_raw() }));
                return None;
            }
            Ok(Some(failure)) => failure,
            Err(error) => return Some(not_started("exec", &error)),
        };
        let step = failure.step().to_owned();
        if failure.is_confinement() {
            return Some(Outcome::NotConfined { step, reason: failure.to_string() });
        }
        Some(Outcome::NotStarted { step, reason: explain(&failure, self.plan) })
    }

    /// What init tells, unless the program never ran.
    fn learn_end(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        self.attentive = false;
        let told = self.space.as_ref()?.told()?;
        Some(self.learn_verdict(connection).unwrap_or(told))
    }

    /// Takes note of everyone who has ended.
    fn reap(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        while matches!(self.signals.next(), Ok(Some(_))) {}
        loop {
            match process::reap() {
                Ok(Reaped::Child(pid, end)) if pid == self.leader => {
                    let space = self.space.take();
                    if self.watch.why().is_some() {
                        continue;
                    }
                    // It has ended, so the pipe has its last word.
                    let failed = self.learn_verdict(connection);
                    return failed.or_else(|| Some(space.map_or(outcome_of(end), |space| space.outcome(end))));
                }
                Ok(Reaped::Child(..)) => {}
                Ok(Reaped::Running) | Err(_) => return None,
                Ok(Reaped::Nobody) => return self.watch.why().cloned(),
            }
        }
    }

    /// Reads what the front-end says. One that talks nonsense is treated as one that is gone.
    fn hear(&mut self, connection: &OwnedFd) -> Action {
        let mut buffer = [0; COMMAND];
        let left = COMMAND.saturating_sub(self.heard.len()).max(1);
        let room = buffer.get_mut(..left).unwrap_or_default();
        match fdpass::receive(connection, room, 0) {
            Ok(message) if message.size > 0 => {
                self.heard.extend(buffer.iter().take(message.size));
                match command(&self.heard) {
                    Ok(None) => Action::Wait,
                    Ok(Some(Command::Cancel)) => self.end_it(),
                    Err(Nonsense) => self.lose_the_front_end(),
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Action::Wait,
            Ok(_) | Err(_) => self.lose_the_front_end(),
        }
    }

    /// Nobody is there any more: the end of an attached script, and nothing to a detached one.
    fn lose_the_front_end(&mut self) -> Action {
        if self.plan.mode() == Mode::Attached {
            return self.end_it();
        }
        self.listening = false;
        Action::Wait
    }

    fn end_it(&mut self) -> Action {
        (self.listening, self.cancel) = (false, None);
        self.watch.cancel(Instant::now())
    }

    fn signal_tree(&self, done: &std::io::Result<()>, signal: Signal) {
        if done.is_err() {
            // Without /proc nobody can be found but by their group.
            process::signal_group(self.leader, signal);
        }
    }

    fn act(&self, action: Action, audit: Audit<'_>) {
        match (action, &self.space) {
            (Action::Wait, _) => return,
            (Action::Terminate, Some(space)) => space.terminate(),
            (Action::Kill | Action::KillAndTell, Some(space)) => space.kill(),
            (Action::Terminate, None) => self.signal_tree(&process::continue_and_terminate(), Signal::SIGTERM),
            (_, None) => self.signal_tree(&process::freeze_and_kill(), Signal::SIGKILL),
        }
        if action == Action::KillAndTell {
            audit(&ExecEvent::Lingering { request: self.order.request() });
        }
    }
}

/// What can be told of a script that is not confined, once its own end is known.
const fn outcome_of(end: End) -> Outcome {
    match end {
        End::Exited(code) => Outcome::Exited { code },
        End::Signalled(signal) => Outcome::Signalled { signal },
    }
}

/// The system's reason, and where that is known to mislead, what it means.
fn explain(failure: &Failure, plan: &Plan) -> String {
    let reason = failure.reason();
    let exists = || std::fs::metadata(crate::sys::file::path_of(plan.program())).is_ok();
    match reason.kind() {
        _ if failure.step() == "identity" => "the file was replaced while it was being started: try again".to_owned(),
        std::io::ErrorKind::NotFound if exists() => {
            format!("{reason}: the file is there, so the program that its '#!' line names is not")
        }
        _ if reason.raw_os_error() == Some(process::NOT_A_PROGRAM) => {
            format!("{reason}: a script needs a '#!' line, a program must be made for this kind of machine")
        }
        std::io::ErrorKind::PermissionDenied => {
            let confinement = plan.confinement();
            let uid = confinement.map_or(user::current().0, |confinement| confinement.person().uid);
            let readable = confinement.is_some_and(|confinement| confinement.profile().readable.is_some());
            let trees =
                if readable { ", or it needs a program or library outside of its profile's 'readable'" } else { "" };
            let why = "may not execute the file or enter a directory above it, or it is mounted noexec";
            format!("{reason}: uid {uid} {why}{trees}")
        }
        _ => reason.to_string(),
    }
}

/// Bytes that are not a command.
struct Nonsense;

/// The command at the beginning of `heard`; nothing if it has not arrived whole.
fn command(heard: &[u8]) -> Result<Option<Command>, Nonsense> {
    let Some((prefix, rest)) = heard.split_first_chunk() else { return Ok(None) };
    let size = frame::announced(*prefix, COMMAND - frame::PREFIX).map_err(|_| Nonsense)?;
    match rest.get(..size) {
        None => Ok(None),
        Some(body) => frame::decode(body).map(Some).map_err(|_| Nonsense),
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn a_command_is_heard_once_it_is_whole() {
        let bytes = frame::encode(&Command::Cancel, COMMAND).unwrap();
        for cut in 0..bytes.len() {
            assert!(matches!(command(&bytes[..cut]), Ok(None)), "{cut}");
        }
        assert!(matches!(command(&bytes), Ok(Some(Command::Cancel))));
        assert!(command(&[0, 0, 0, 1, b'x']).is_err());
        assert!(command(&[1, 0, 0, 0]).is_err());
    }
}
