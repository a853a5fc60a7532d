//! The executor as a private child of the front-end: it takes orders' connections and forks their monitors.
//!
//! It does as little as can be: it reads the configuration, hands each order's connection to a monitor of its own,
//! and counts them. What an order says, only its monitor reads.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::event::{Audit, ExecEvent};
use super::monitor;
use super::policy::Policy;
use super::report;
use crate::sys::process::{self, Fork, Pid, Reaped, Signal, Signals};
use crate::sys::{fdpass, poll, user};
use crate::wire::control::{self, Control, Reloaded};
use crate::wire::order::Report;
use crate::wire::outcome::Outcome;
use crate::wire::refusal::Refusal;

/// How long the front-end may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait for a monitor that may be about to end before an order is turned away.
const SECOND_LOOK: Duration = Duration::from_millis(10);

/// Why the executor does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A private executor would run every script as root.
    #[error("a private executor does not run as root: every script would be root's. Start the agent as its own user")]
    Root,
    /// The configuration is broken, which the front-end has been told too.
    #[error("the executor cannot use the configuration: {0}")]
    Policy(String),
    /// The socket to the front-end, or waiting for it, failed.
    #[error("the executor lost its socket to the agent")]
    Control(#[source] io::Error),
}

/// Serves the front-end at the other end of `control` ([`control`]) until that closes or a signal asks to end.
/// Monitors go on either way.
///
/// `load` reads the configuration, at the start and at each reload; its error is a text with every fault in its
/// place. `audit` is called here and, after a fork, in the monitors.
///
/// **Invariant:** called in a process with one thread.
///
/// # Errors
/// Running as root, a configuration that is broken at the start, or a socket that fails.
pub fn serve_private(
    control: OwnedFd,
    load: impl Fn() -> Result<Policy, String>,
    audit: impl Fn(&ExecEvent<'_>),
) -> Result<(), ServeError> {
    if user::is_root() {
        return Err(ServeError::Root);
    }
    // An agent may have been given some to listen on a low port; they are not for its scripts.
    user::clear_capabilities().map_err(ServeError::Control)?;
    // SIGHUP is for the front-end, which asks for a reload over the socket; here it is only kept from ending us.
    let wanted = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let signals = Signals::collect(&wanted).map_err(ServeError::Control)?;
    let policy = match load() {
        Ok(policy) => policy,
        Err(text) => {
            // If the front-end is gone as well, our own status says the same.
            drop(answer(&control, &failed(&text)));
            return Err(ServeError::Policy(text));
        }
    };
    answer(&control, &Reloaded::Done).map_err(ServeError::Control)?;
    let server = Server { control, signals, policy, monitors: BTreeSet::new(), audit: &audit };
    server.serve(&load).map_err(ServeError::Control)
}

struct Server<'a> {
    control: OwnedFd,
    signals: Signals,
    policy: Policy,
    monitors: BTreeSet<Pid>,
    audit: Audit<'a>,
}

/// What a message from the front-end asks for.
enum Asked {
    Order(OwnedFd),
    Reload,
    /// The front-end is gone.
    End,
    Nothing,
}

impl Server<'_> {
    fn serve(mut self, load: &dyn Fn() -> Result<Policy, String>) -> io::Result<()> {
        let mut buffer = vec![0; control::LIMIT];
        loop {
            let [signal, message] = poll::readable([Some(self.signals.as_fd()), Some(self.control.as_fd())], None)?;
            if signal.readable && self.signalled()? {
                return Ok(());
            }
            if !message.readable {
                continue;
            }
            match self.receive(&mut buffer, message.closed)? {
                Asked::Order(connection) => self = self.take_order(&connection),
                Asked::Reload => self.reload(load)?,
                Asked::End => return Ok(()),
                Asked::Nothing => {}
            }
        }
    }

    /// Counts monitors that have ended; whether it is time to end ourselves.
    fn signalled(&mut self) -> io::Result<bool> {
        let mut end = false;
        while let Some(signal) = self.signals.next()? {
            end |= matches!(signal, Signal::SIGTERM | Signal::SIGINT);
        }
        self.count();
        Ok(end)
    }

    fn receive(&self, buffer: &mut [u8], closed: bool) -> io::Result<Asked> {
        let message = match fdpass::receive(&self.control, buffer, 1) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(self.ignore(&error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Asked::End),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Asked::Nothing);
            }
            Err(error) => return Err(error),
        };
        // An empty message reads like the end; only the end hangs up.
        if message.size == 0 && closed {
            return Ok(Asked::End);
        }
        let text = buffer.get(..message.size).unwrap_or_default();
        let mut descriptors = message.descriptors.into_iter();
        match (serde_json::from_slice(text), descriptors.next()) {
            _ if message.cut => Ok(self.ignore("a message is larger than the protocol allows")),
            (Ok(Control::Order), Some(connection)) => Ok(Asked::Order(connection)),
            (Ok(Control::Order), None) => Ok(self.ignore("an order came without its connection")),
            (Ok(Control::Reload), None) => Ok(Asked::Reload),
            (Ok(Control::Reload), Some(_)) => Ok(self.ignore("a reload came with a descriptor")),
            (Err(error), _) => Ok(self.ignore(&format!("a message cannot be understood: {error}"))),
        }
    }

    fn ignore(&self, reason: &str) -> Asked {
        (self.audit)(&ExecEvent::Ignored { reason });
        Asked::Nothing
    }

    /// Forks the order's monitor. The child never returns from here.
    fn take_order(mut self, connection: &OwnedFd) -> Self {
        if fdpass::peer(connection).is_err() {
            self.ignore("an order's connection is not a connected unix socket");
            return self;
        }
        if self.is_full() {
            let most = self.policy.max_children;
            let text = format!("{most} scripts are running, which is as many as max_children allows: try again later");
            self.turn_away(connection, &Outcome::Refused(Refusal::new("busy", text)));
            return self;
        }
        match process::fork() {
            Ok(Fork::Child) => {
                let Self { control, signals, policy, audit, .. } = self;
                // Else the front-end would not notice the executor's end while this order runs.
                drop((control, signals));
                monitor::run(connection, &policy, audit);
                process::end(0)
            }
            Ok(Fork::Parent(pid)) => {
                self.monitors.insert(pid);
            }
            Err(error) => {
                let (step, reason) = ("fork".to_owned(), error.to_string());
                self.turn_away(connection, &Outcome::NotStarted { step, reason });
            }
        }
        self
    }

    /// Whether as many monitors run as may. One that has told its outcome is about to end, and the front-end may send
    /// the next order for its place before it has: so a full house is looked at twice.
    fn is_full(&mut self) -> bool {
        let full = |server: &Self| server.monitors.len() >= server.policy.max_children;
        if full(self) {
            let ended = poll::readable([Some(self.signals.as_fd())], Some(SECOND_LOOK));
            if ended.is_ok_and(|[ready]| ready.readable) {
                self.count();
            }
        }
        full(self)
    }

    /// Forgets monitors that have ended.
    fn count(&mut self) {
        while let Ok(Reaped::Child(pid, _)) = process::reap() {
            self.monitors.remove(&pid);
        }
    }

    /// Answers without a monitor, and without waiting: a fresh socket has room for the answer.
    fn turn_away(&self, connection: &OwnedFd, outcome: &Outcome) {
        let report = Report::Ended(outcome.clone());
        // A front-end that has gone away does not miss it.
        drop(report::send_now(connection, &report));
        (self.audit)(&ExecEvent::Ended { order: None, profile: None, pid: None, outcome });
    }

    /// All of the new configuration or all of the old.
    fn reload(&mut self, load: &dyn Fn() -> Result<Policy, String>) -> io::Result<()> {
        match load() {
            Ok(policy) => {
                self.policy = policy;
                (self.audit)(&ExecEvent::Reloaded);
                answer(&self.control, &Reloaded::Done)
            }
            Err(text) => {
                (self.audit)(&ExecEvent::ReloadFailed { text: &text });
                answer(&self.control, &failed(&text))
            }
        }
    }
}

/// Cut so that it fits an answer even if each byte needs six in JSON.
fn failed(text: &str) -> Reloaded {
    const MOST: usize = control::LIMIT / 6 - 64;
    let text = text.get(..text.floor_char_boundary(MOST)).unwrap_or(text);
    Reloaded::Failed { text: text.to_owned() }
}

/// One message, whole or not at all.
fn answer(control: &OwnedFd, message: &Reloaded) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    report::write_all(control, &bytes, PATIENCE)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn a_long_list_of_faults_is_cut_to_fit_an_answer() {
        let Reloaded::Failed { text } = failed(&"\u{1}é".repeat(control::LIMIT)) else { panic!("not failed") };
        let bytes = serde_json::to_vec(&Reloaded::Failed { text }).unwrap();
        assert!(bytes.len() <= control::LIMIT && bytes.len() > control::LIMIT / 3, "{}", bytes.len());
    }
}
