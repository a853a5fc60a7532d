//! The executor's service: it takes orders' connections and hands them to monitors.
//!
//! It does as little as can be: it reads the configuration, finds each connection a monitor (one that waits for another
//! order, or a fork), and counts them (`crew`). What an order says, only its monitor reads; of one that comes on a connection
//! that its monitor has kept (`post`), the service hears nothing.
//!
//! There are three services, which differ in how a connection reaches them and in what they may do:
//!
//! | service | started by | rights | connections come |
//! |---|---|---|---|
//! | private | the front-end | the front-end's | over its socket pair (`control`) |
//! | own | the front-end, before it gives up root | root | over its socket pair (`control`), kept alive by `keeper` |
//! | system | the init system | root | through a listening socket (`socket`) |
//!
//! One with root's rights has no network: it leaves the host's for an empty one of its own, and the monitors return
//! for scripts that are to have it. (A filter on system calls would do for the executor too, but scripts would inherit
//! it, and nothing takes a filter back.)

mod control;
mod crew;
mod custody;
mod orphans;
mod socket;

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crew::Crew;

pub use control::{serve_own, serve_private};
pub use socket::{Door, serve_socket};

use super::confinements::Confinements;
use super::event::{Audit, ExecEvent};
use super::monitor::{self, Means};
use super::needs;
use super::policy::Policy;
use super::report;
use super::supervision::no_process;
use crate::sys::capability;
use crate::sys::inherited;
use crate::sys::listener::BindError;
use crate::sys::memory;
use crate::sys::network::HostNetwork;
use crate::sys::poll;
use crate::sys::process::{self, Fork, Signal, Signals};
use crate::wire::control::Reloaded;
use crate::wire::order::Report;
use crate::wire::outcome::Outcome;
use crate::wire::refusal::Refusal;

/// So many monitors that are done with their orders may be about to end beside those that are at work; and how long to wait for
/// one of them before an order is turned away. It takes a host that is busy beyond measure.
const LEAVING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two looks within that.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a monitor's end waits for a log that does not keep up: it still counts as one that is at work.
const LAST_WORD: Duration = Duration::from_millis(100);
/// How long what a log has not taken waits for another attempt, and what could not be cleared away.
const RETRY: Duration = Duration::from_secs(1);

/// The signals that a service hears.
const SIGNALS: [Signal; 4] = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Reads the configuration, at the start and at each reload. Its error is a text with every fault in its place.
pub type Load<'a> = &'a dyn Fn() -> Result<Policy, String>;

/// Why the executor does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A private executor would run every script as root.
    #[error("a private executor does not run as root: every script would be root's. Start the agent as its own user")]
    Root,
    /// A root executor has to be one.
    #[error("the executor must run as root: it applies profiles")]
    NotRoot,
    /// A root executor that could confine no run.
    #[error("{0}")]
    Incapable(String),
    /// The configuration is broken.
    #[error("the executor cannot use the configuration: {0}")]
    Policy(String),
    /// The host's network cannot be left.
    #[error("the executor cannot leave the host's network")]
    Network(#[source] io::Error),
    /// Its socket cannot be put in place.
    #[error("the executor cannot listen")]
    Listen(#[source] BindError),
    /// The init system handed over something else than it is to.
    #[error("the socket that was handed over cannot be used")]
    Given(#[source] io::Error),
    /// The socket to the front-end, or waiting for it, failed.
    #[error("the executor lost its socket to the agent")]
    Control(#[source] io::Error),
    /// The front-end that has started it knows why, and says so.
    #[error(transparent)]
    Told(Box<Self>),
}

/// Whether an executor with the rights of this process could confine a run: what it lacks it never gets back, so that none serves
/// without.
///
/// # Errors
/// It could not.
pub fn able() -> Result<(), ServeError> {
    let held = capability::held().map_err(ServeError::Control)?;
    needs::met(held).map_err(|lacking| ServeError::Incapable(lacking.why))
}

/// A service that is up. `D` is what connections come through.
struct Server<'a, D> {
    door: D,
    signals: Signals,
    /// What may run; or what is wrong with the configuration, and then nothing may.
    policy: Result<Policy, String>,
    crew: Crew,
    audit: Audit<'a>,
    load: Load<'a>,
    network: Option<&'a HostNetwork>,
    /// Connections taken since pages of the program were given back.
    taken: u32,
}

/// After so many connections a service gives back what of its program they need no more: reading a file anew costs less than a
/// microsecond of each.
const TIDY: u32 = 200;

/// What the signals that have arrived ask for.
#[derive(Clone, Copy, Default)]
struct Asked {
    end: bool,
    reload: bool,
}

/// What connections come through.
trait Way {
    /// How many monitors beyond `max_children` may be there to answer words of control and refuse orders.
    const SPARE: usize;

    /// In a monitor: closes it but for what the monitor tells the executor by, if there is such a thing.
    fn teller(self) -> Option<OwnedFd>;
}

impl<D: Way> Server<'_, D> {
    /// Takes the signals that have arrived, and counts monitors that have ended.
    fn signalled(&mut self) -> io::Result<Asked> {
        let mut asked = Asked::default();
        // Each waits at most once; and while children end all the time, theirs comes again at once.
        for _ in SIGNALS {
            let Some(signal) = self.signals.next()? else { break };
            asked.end |= matches!(signal, Signal::SIGTERM | Signal::SIGINT);
            asked.reload |= signal == Signal::SIGHUP;
        }
        self.crew.count(self.audit);
        match self.crew.unheard() {
            0 => {}
            events => self.audit.count(events),
        }
        Ok(asked)
    }

    /// Writes what the log has not taken yet, and clears away what monitors have left. If there is something left of either, this
    /// is when to come again.
    fn tidy_up(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let behind = self.crew.is_behind().then_some(Duration::ZERO);
        let left = self.crew.clear(now, RETRY).map(|at| at.saturating_duration_since(now));
        let unwritten = (self.audit.settle(Duration::ZERO) > 0).then_some(RETRY);
        [behind, left, unwritten].into_iter().flatten().min()
    }

    fn ignore(&self, reason: &str) {
        self.audit.tell(&ExecEvent::Ignored { reason });
    }

    /// Gives the connection to a monitor: one that is free, or a new one, which never returns from here.
    fn take(mut self, connection: OwnedFd) -> Self {
        self.taken += 1;
        if self.taken >= TIDY {
            self.taken = 0;
            // What is only a saving may fail.
            drop(memory::forget_unchanged());
        }
        let most = match self.in_force() {
            Ok(policy) => policy.max_children,
            Err(refusal) => {
                self.turn_away(&connection, &Outcome::Refused(refusal));
                return self;
            }
        };
        self.crew.listen();
        let full = self.is_full(most).then_some(most);
        if full.is_some() && self.crew.refusing() >= D::SPARE {
            self.turn_away(&connection, &Outcome::Refused(monitor::busy(most)));
            return self;
        }
        if full.is_none() && self.crew.give(&connection) {
            return self;
        }
        // Without a line, it is for one order alone.
        let line = if full.is_none() { self.crew.line().ok() } else { None };
        let (ours, post) = line.unzip();
        let (posting, place) = self.crew.post(full.is_some());
        match process::fork() {
            Ok(Fork::Child) => {
                let Self { door, signals, policy, audit, network, crew, .. } = self;
                // Else nobody would notice the executor's end while this order runs.
                drop((signals, crew, ours));
                let control = door.teller();
                if let Ok(policy) = &policy {
                    monitor::run(connection, &Means { policy, audit, network, control, full, place }, post.as_ref());
                }
                process::end(i32::from(u8::try_from(audit.settle(LAST_WORD)).unwrap_or(u8::MAX)))
            }
            Ok(Fork::Parent(pid)) => self.crew.add(pid, ours, posting),
            Err(error) => {
                self.crew.give_back(posting);
                self.turn_away(&connection, &no_process(&error));
            }
        }
        self
    }

    /// The policy. Where there is none because the configuration was broken, it is looked at again.
    fn in_force(&mut self) -> Result<&Policy, Refusal> {
        if self.policy.is_err() {
            self.policy = (self.load)().inspect(|policy| put_in_force(policy, self.audit));
            self.crew.retire();
        }
        self.policy.as_ref().map_err(|_| {
            let text = "the configuration of the executor is broken: its log says where";
            Refusal::new("executor-configuration", text)
        })
    }

    /// Whether `most` monitors or more are at work, so that there is no place for another.
    fn is_full(&mut self, most: usize) -> bool {
        if self.crew.out() < most {
            return false;
        }
        if self.crew.at_work() < most {
            self.crew.retire_done();
        }
        self.crew.at_work() >= most || self.stays_at(most.saturating_add(LEAVING))
    }

    /// Whether `most` monitors or more are out, and still are after a while.
    fn stays_at(&mut self, most: usize) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.crew.out() >= most {
            let left = until.saturating_duration_since(Instant::now());
            // A signal stays for the loop to take, and would end every further wait at once.
            if left.is_zero() || poll::readable([Some(self.crew.ear())], Some(left.min(PAUSE))).is_err() {
                return true;
            }
            self.crew.count(self.audit);
        }
        false
    }

    /// Answers without a monitor, and without waiting: a fresh socket has room for the answer.
    fn turn_away(&self, connection: &OwnedFd, outcome: &Outcome) {
        let report = Report::Ended(outcome.clone());
        // A front-end that has gone away does not miss it.
        drop(report::send_now(connection, &report));
        self.audit.tell(&ExecEvent::Ended { order: None, profile: None, unconfined: false, pid: None, outcome });
    }

    /// All of the new configuration or all of the old.
    fn reload(&mut self) -> Reloaded {
        let reloaded = self.read_again();
        // Reading and judging takes most of the program, and nothing else does. What is only a saving may fail.
        drop(memory::forget_unchanged());
        reloaded
    }

    fn read_again(&mut self) -> Reloaded {
        match (self.load)() {
            Ok(mut policy) => {
                put_in_force(&policy, self.audit);
                if let Ok(earlier) = &self.policy {
                    policy.after(earlier);
                }
                self.policy = Ok(policy);
                self.crew.retire();
                self.audit.tell(&ExecEvent::Reloaded);
                Reloaded::Done
            }
            Err(text) => {
                self.audit.tell(&ExecEvent::ReloadFailed { text: &text });
                Reloaded::failed(&text)
            }
        }
    }
}

/// Leaves what a root executor has from whoever started it and its scripts are not to have from it: once, for all of them.
fn start_afresh(audit: Audit<'_>) {
    let kept = inherited::put_right();
    if !kept.is_empty() {
        audit.tell(&ExecEvent::Inherited { kept: &kept });
    }
}

/// Before it takes effect: makes of the agent's places what is not there, so that no script can; and says what an operator should be
/// reminded of.
fn put_in_force(policy: &Policy, audit: Audit<'_>) {
    for path in policy.confinements.iter().flat_map(Confinements::make_homes) {
        audit.tell(&ExecEvent::Made { path });
    }
    if policy.lifts_trust() {
        audit.tell(&ExecEvent::TrustLifted);
    }
}
