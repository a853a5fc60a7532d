//! Standing by a script from its start to its end: what the monitor hears meanwhile, and what it does about it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::confine::Space;
use super::covers::Covers;
use super::decide::Plan;
use super::event::{Audit, ExecEvent};
use super::household::Household;
use super::printed::Printed;
use super::reasons::{why, with};
use super::report;
use super::unstarted;
use super::watch::{Action, Watch};
use crate::sys::process::{self, End, Failure, Pid, Rest, Signal, Signals, Spawned};
use crate::sys::{fdpass, poll, shortage};
use crate::wire::frame;
use crate::wire::order::{Command, Mode, Order, Report};
use crate::wire::outcome::Outcome;

/// Largest command, in bytes.
const COMMAND: usize = 64;
/// So long a start is kept to oneself: most scripts have ended by then, and are told of once instead of twice. That of a job
/// is told at once, since its caller waits for nothing else.
const MOMENT: Duration = Duration::from_millis(3);

/// A script between its start and its end.
pub(super) struct Supervision<'a> {
    plan: &'a Plan,
    order: &'a Order,
    leader: Pid,
    /// The namespace that `leader` is in; none for a script that is not confined.
    pub(super) space: Option<Space>,
    /// How `leader` has ended.
    end: Option<End>,
    /// Whether the namespace's init was asked to bury everyone, and has not answered.
    burying: bool,
    others: Others,
    /// What is covered for the script, once it runs.
    covers: Option<Covers>,
    signals: &'a Signals,
    household: &'a Household,
    /// Until exec has succeeded or failed.
    verdict: Option<OwnedFd>,
    /// When it is to be told that exec has succeeded, if it still is.
    untold: Option<Instant>,
    watch: Watch,
    /// What has arrived of a command.
    heard: Vec<u8>,
    /// Whether anything that the front-end may still say matters.
    listening: bool,
    /// A byte in it cancels, whoever has written it; until then.
    pub(super) cancel: Option<OwnedFd>,
    /// What a detached job prints into.
    pub(super) printed: Option<Printed>,
}

/// What is known of those who have ended besides the script's process.
#[derive(Default)]
struct Others {
    /// One was started by nobody here: a sibling that the script's process has made.
    strangers: bool,
    /// There may be more than were taken note of.
    behind: bool,
}

/// A script's end.
pub(super) struct Ended {
    pub(super) outcome: Outcome,
    /// The namespace, if it is still to be seen out.
    pub(super) space: Option<Space>,
    pub(super) printed: Option<Printed>,
    /// The start, if it is still to be told.
    pub(super) start: Option<Report>,
}

impl<'a> Supervision<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        order: &'a Order,
        (spawned, started): (Spawned, Instant),
        (signals, household): (&'a Signals, &'a Household),
    ) -> Self {
        let Spawned { pid, verdict } = spawned;
        let watch = Watch::new(plan.time_limit(), plan.kill_grace(), started);
        let heard = Vec::with_capacity(COMMAND);
        let verdict = Some(verdict);
        let (space, cancel, printed) = (None, None, None);
        Self {
            plan,
            order,
            leader: pid,
            space,
            end: None,
            burying: false,
            others: Others::default(),
            covers: None,
            signals,
            household,
            verdict,
            untold: None,
            watch,
            heard,
            listening: true,
            cancel,
            printed,
        }
    }

    /// Stands by.
    pub(super) fn until_the_end(mut self, connection: &OwnedFd, audit: Audit<'_>) -> Ended {
        // The start alone may have taken all its time.
        let timed = self.watch.tick(Instant::now());
        self.act(timed, audit);
        loop {
            let printed = self.printed.as_ref().map(Printed::wakes);
            let covers = self.covers.as_ref().and_then(Covers::wakes);
            let wakes = [self.watch.wakes(), printed, self.untold, self.household.wakes(), covers];
            let wakes = wakes.into_iter().flatten().min();
            let limit = wakes.map(|at| at.saturating_duration_since(Instant::now()));
            let limit = if self.others.behind { Some(Duration::ZERO) } else { limit };
            let verdict = self.verdict.as_ref().map(AsFd::as_fd);
            let peer = self.listening.then(|| connection.as_fd());
            let fifo = self.cancel.as_ref().map(AsFd::as_fd);
            // The kernel refuses to wait only when it has no memory for four entries; then we come round again.
            // A run that is being ended has no say any more.
            let burying = self.space.as_ref().filter(|_| self.burying && self.watch.why().is_none());
            let ear = burying.map(|space| space.init().ear());
            let sources = [verdict, Some(self.signals.as_fd()), peer, fifo, ear];
            let changes = self.covers.as_ref().and_then(Covers::changes);
            let (ready, taken_off) = poll::readable_or_changed(sources, changes, limit).unwrap_or_default();
            let [verdict, child, peer, fifo, told] = ready.map(|ready| ready.readable);
            let ended = if verdict { self.learn_verdict(connection) } else { None };
            let ended = ended.or_else(|| if told { self.learn_of_burial(connection) } else { None });
            if let Some(outcome) =
                ended.or_else(|| if child || self.others.behind { self.reap(connection) } else { None })
            {
                let start = self.untold.map(|_| self.start());
                return Ended { outcome, space: self.space, printed: self.printed, start };
            }
            let asked = if fifo { self.end_it() } else { Action::Wait };
            self.act(asked, audit);
            let asked = if peer { self.hear(connection) } else { Action::Wait };
            self.act(asked, audit);
            let now = Instant::now();
            if self.untold.take_if(|at| *at <= now).is_some() {
                self.tell_start(connection);
            }
            self.household.drop_outdated(now);
            let uncovered = self.covers.as_mut().and_then(|covers| covers.lost(taken_off, now));
            let judged = uncovered.map_or(Action::Wait, |why| self.watch.uncovered(why, now));
            self.act(judged, audit);
            let timed = self.watch.tick(now);
            self.act(timed, audit);
            let excess = self.printed.as_mut().and_then(|printed| printed.look(now));
            let judged = excess.map_or(Action::Wait, |excess| self.watch.printed(excess, now));
            self.act(judged, audit);
        }
    }

    /// Exec has succeeded, and is reported, or failed, and is the outcome.
    fn learn_verdict(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        let failure = match Failure::read(self.verdict.take()?) {
            Ok(None) if self.was_late() => {
                return Some(not_started("exec", &io::ErrorKind::TimedOut.into()));
            }
            Ok(None) => {
                let now = Instant::now();
                let of_it = |space: &Space| Covers::of(self.plan.confinement()?, space.init(), (self.leader, now));
                self.covers = self.space.as_ref().and_then(of_it);
                self.untold = now.checked_add(MOMENT).filter(|_| self.plan.mode() == Mode::Attached);
                if self.untold.is_none() {
                    self.tell_start(connection);
                }
                return None;
            }
            Ok(Some(failure)) => failure,
            Err(error) => return Some(not_started("exec", &error)),
        };
        let step = failure.step().to_owned();
        if failure.is_confinement() {
            return Some(Outcome::NotConfined { step, reason: why(&failure) });
        }
        Some(Outcome::NotStarted { step, reason: explain(&failure, self.plan) })
    }

    /// Whether the script's process had no time left to become its program.
    fn was_late(&self) -> bool {
        self.space.as_ref().map_or_else(|| self.household.is_spoilt(), Space::was_late)
    }

    const fn start(&self) -> Report {
        Report::Started { pid: self.leader.as_raw() }
    }

    fn tell_start(&self, connection: &OwnedFd) {
        // If it does not arrive, the front-end is gone, and we hear of that next.
        drop(report::send(connection, &[self.start()]));
    }

    /// What became of the script, unless the program never ran, once init tells that everyone is gone.
    fn learn_of_burial(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        self.burying = false;
        // One that has ended without is heard of by its end.
        let told = self.space.as_ref()?.init().tells_of_burial();
        if told { self.conclude(connection) } else { None }
    }

    /// Takes note of those who have ended, as many as leave time for the clock and the front-end.
    fn reap(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        // Another one is another reason to come here.
        drop(self.signals.next());
        let Self { leader, end, space, household, others, .. } = self;
        let rest = process::reap_some(|pid, how| {
            // Once it is buried, its number may be another's.
            if pid == *leader && end.is_none() {
                *end = Some(how);
            } else if !space.as_mut().is_some_and(|space| space.is_deserted_by(pid)) && !household.one_less(pid) {
                others.strangers = true;
            }
        });
        self.others.behind = matches!(rest, Ok(Rest::More));
        if self.space.is_none() && self.end.is_some() && self.watch.why().is_none() {
            return self.conclude(connection);
        }
        match rest {
            Ok(Rest::Nobody) if self.space.is_none() => self.watch.why().cloned(),
            Ok(_) => self.look_at_space(connection),
            Err(_) => None,
        }
    }

    /// The outcome, if the script has ended and nobody is left in its namespace. Else sees to it that nobody will be.
    fn look_at_space(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        let (space, _) = (self.space.as_ref()?, self.end?);
        if let Some(why) = self.watch.why() {
            if space.is_deserted() {
                return Some(why.clone());
            }
            space.kill();
            return None;
        }
        if space.is_deserted() {
            return self.conclude(connection);
        }
        if self.others.strangers || self.household.has_strangers(space.init().pid) {
            // Init cannot wait for them, and they may make more of themselves meanwhile; its own end is theirs too.
            space.kill();
            return None;
        }
        if space.init().is_alone() {
            return self.conclude(connection);
        }
        if !self.burying {
            space.init().bury();
            self.burying = true;
        }
        None
    }

    /// The outcome of a script that has ended, unless the program never ran: then why.
    fn conclude(&mut self, connection: &OwnedFd) -> Option<Outcome> {
        let end = self.end?;
        // It has ended, so the pipe has its last word.
        let failed = self.learn_verdict(connection);
        failed.or_else(|| Some(self.space.as_ref().map_or(outcome_of(end), |space| space.judge(end))))
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
            audit.tell(&ExecEvent::Lingering { request: self.order.request() });
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

/// A program that never ran, for a reason that is not its confinement's.
pub(super) fn not_started(step: &str, error: &std::io::Error) -> Outcome {
    Outcome::NotStarted { step: step.to_owned(), reason: error.to_string() }
}

/// Not even a process was there for it.
pub(super) fn no_process(error: &std::io::Error) -> Outcome {
    Outcome::NotStarted { step: "fork".to_owned(), reason: with(error, shortage::of_processes(error)) }
}

/// The system's reason, and where that is known to mislead, what it means.
fn explain(failure: &Failure, plan: &Plan) -> String {
    match failure.step() {
        "identity" => "the file was replaced while it was being started: try again".to_owned(),
        "directory" => unstarted::unentered(&failure.to_string(), failure.reason().kind(), plan),
        "exec" => unstarted::unexecuted(&failure.reason(), plan),
        "timer" => with(failure, shortage::of_signals(&failure.reason())),
        // What is known of the program explains no other step.
        _ => failure.to_string(),
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
