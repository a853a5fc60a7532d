//! Executors that the front-end starts itself, at the other end of a socket pair.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{Audit, Crew, ExecEvent, Load, SIGNALS, ServeError, Server, Way, able, put_in_force, start_afresh};
use crate::audit::FAREWELL;
use crate::executor::confine;
use crate::executor::event::Trail;
use crate::executor::keeper::{self, Verdict};
use crate::executor::ledger::Ledger;
use crate::executor::policy::Policy;
use crate::executor::report;
use crate::executor::succession::Succession;
use crate::sys::network::HostNetwork;
use crate::sys::process::{self, Signals};
use crate::sys::{fdpass, memory, poll, user};
use crate::wire::causes;
use crate::wire::control::{self, Control, Reloaded};

/// How long the front-end may take to read an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves the front-end at the other end of `control` ([`control`]) until that closes or a signal asks to end.
/// Monitors go on either way. `audit` is called here and, after a fork, in the monitors.
///
/// **Invariant:** called in a process with one thread.
///
/// # Errors
/// Running as root, a configuration that is broken at the start, or a socket that fails. Until it serves, the front-end is told
/// ([`ServeError::Told`]).
pub fn serve_private(
    control: OwnedFd,
    load: impl Fn() -> Result<Policy, String>,
    audit: &impl Trail,
) -> Result<(), ServeError> {
    let begun = begin_private(&load).map_err(|error| told(&control, error))?;
    let (policy, signals, ledger) = begun;
    if !hears(&control)? {
        return Ok(());
    }
    serve(control, signals, Ok(policy), Part { load: &load, audit, network: None, ledger: &ledger })
}

fn begin_private(load: Load<'_>) -> Result<(Policy, Signals, Ledger), ServeError> {
    if user::is_root() {
        return Err(ServeError::Root);
    }
    // An agent may have been given some to listen on a low port; they are not for its scripts.
    user::clear_capabilities().map_err(ServeError::Control)?;
    // Which the agent does without.
    memory::allow_huge_pages(true);
    let policy = load().map_err(ServeError::Policy)?;
    let signals = Signals::collect(&SIGNALS).map_err(ServeError::Control)?;
    Ok((policy, signals, Ledger::new().map_err(ServeError::Control)?))
}

/// As [`serve_private`] with root's rights: the executor that a front-end started before it gave up its own. The
/// front-end could not start another, so a keeper stands by: where the service dies, it starts another on the same
/// socket; and where the front-end takes up another version of the program's file, it does so too.
///
/// **Invariant:** as [`serve_private`].
///
/// # Errors
/// Not running as root or without what confining takes, a network that cannot be left, a configuration that is broken at the
/// start, or a socket that fails; as [`serve_private`].
pub fn serve_own(
    control: OwnedFd,
    load: impl Fn() -> Result<Policy, String>,
    audit: &impl Trail,
    succession: &Succession,
) -> Result<(), ServeError> {
    let begun = begin_own(&load, audit, succession).map_err(|error| told(&control, error))?;
    let (mut policy, network, ledger) = begun;
    let part = Part { load: &load, audit, network: Some(&network), ledger: &ledger };
    if succession.taken_over() {
        audit.tell(&ExecEvent::Upgraded { failure: None });
    }
    if !hears(&control)? {
        return Ok(());
    }
    loop {
        let killed = |pid, signal| ledger.bury(pid, signal, audit);
        match keeper::keep(&control, &killed).map_err(ServeError::Control)? {
            Verdict::Serve => {
                let signals = Signals::collect(&SIGNALS).map_err(ServeError::Control)?;
                return serve(control, signals, policy, part);
            }
            Verdict::Again(end) => {
                audit.tell(&ExecEvent::Restarted { end });
                policy = again(&load, audit);
            }
            Verdict::Upgrade => {
                let text = succession.take_up(&control, &network).map_err(ServeError::Network)?;
                audit.tell(&ExecEvent::Upgraded { failure: Some(&text) });
                answer(&control, &Reloaded::failed(&text)).map_err(ServeError::Control)?;
                policy = again(&load, audit);
            }
            Verdict::Over => return Ok(()),
        }
    }
}

type Begun = (Result<Policy, String>, HostNetwork, Ledger);

fn begin_own(load: Load<'_>, audit: Audit<'_>, succession: &Succession) -> Result<Begun, ServeError> {
    if !user::is_root() {
        return Err(ServeError::NotRoot);
    }
    // One that has taken over keeps its place in any case: it was tried before.
    if !succession.taken_over() {
        able()?;
    }
    start_afresh(audit);
    let network = HostNetwork::leave().map_err(ServeError::Network)?;
    // And whatever has become of the configuration.
    let policy = if succession.taken_over() { again(load, audit) } else { Ok(load().map_err(ServeError::Policy)?) };
    // Without it, profiles with limits on memory or CPU time are refused, with the reason.
    drop(confine::prepare());
    Ok((policy, network, Ledger::new().map_err(ServeError::Control)?))
}

/// Tells the front-end why nobody serves it. One that is gone has had a reason of its own, and has said so.
fn told(control: &OwnedFd, error: ServeError) -> ServeError {
    let answered = match &error {
        ServeError::Policy(text) => Reloaded::failed(text),
        other => Reloaded::unable(&causes::on_one_line(other)),
    };
    drop(answer(control, &answered));
    ServeError::Told(Box::new(error))
}

/// Says that it serves. Whether the front-end is still there to hear it: where it could not start itself, it is gone, which is
/// no failure of the executor's.
fn hears(control: &OwnedFd) -> Result<bool, ServeError> {
    match answer(control, &Reloaded::Done) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
        answered => answered.map(|()| true).map_err(ServeError::Control),
    }
}

/// Another reading of the configuration, by one that serves in any case.
fn again(load: Load<'_>, audit: Audit<'_>) -> Result<Policy, String> {
    load().inspect_err(|text| audit.tell(&ExecEvent::ReloadFailed { text }))
}

/// What a service is given by whoever calls it.
#[derive(Clone, Copy)]
struct Part<'a> {
    load: Load<'a>,
    audit: Audit<'a>,
    network: Option<&'a HostNetwork>,
    /// Shared with the services before, whose monitors may still be at work.
    ledger: &'a Ledger,
}

fn serve(control: OwnedFd, signals: Signals, policy: Result<Policy, String>, part: Part<'_>) -> Result<(), ServeError> {
    let Part { load, audit, network, ledger } = part;
    if let Ok(policy) = &policy {
        put_in_force(policy, audit);
    }
    // Whoever else this one's keeper has adopted was at work for a service before it.
    let elders = if network.is_some() { process::siblings() } else { 0 };
    let crew = ledger.share().and_then(|ledger| Crew::new(elders, ledger, network.is_some()));
    let crew = crew.map_err(ServeError::Control)?;
    // What is only a saving may fail.
    drop(memory::forget_unchanged());
    let server = Server { door: control, signals, policy, crew, audit, load, network, taken: 0 };
    server.serve().map_err(ServeError::Control)
}

impl Way for OwnedFd {
    const SPARE: usize = 0;

    fn teller(self) -> Option<OwnedFd> {
        None
    }
}

/// What a message from the front-end asks for.
enum Message {
    Order(OwnedFd),
    Reload,
    Hello,
    Upgrade,
    /// The front-end is gone.
    End,
    Nothing,
}

impl Server<'_, OwnedFd> {
    fn serve(mut self) -> io::Result<()> {
        let mut buffer = vec![0; control::LIMIT];
        loop {
            let again = self.tidy_up();
            let sources = [self.signals.as_fd(), self.door.as_fd()];
            let [signal, message] = poll::readable(sources.map(Some), again)?;
            // SIGHUP is for the front-end, which asks for a reload over the socket; here it only must not end us.
            if (signal.readable || self.crew.is_behind()) && self.signalled()?.end {
                return Ok(());
            }
            if !message.readable {
                continue;
            }
            match self.receive(&mut buffer, message.closed)? {
                Message::Order(connection) => self = self.order(connection),
                Message::Reload => {
                    let reloaded = self.reload();
                    answer(&self.door, &reloaded)?;
                }
                Message::Hello => answer(&self.door, &Reloaded::Done)?,
                // Its keeper's part: what is forked from it is the old program again.
                Message::Upgrade if self.network.is_some() => {
                    self.audit.settle(FAREWELL);
                    process::end(keeper::UPGRADE.into())
                }
                Message::Upgrade => {
                    answer(&self.door, &Reloaded::failed("an executor without root's rights is started anew"))?;
                }
                Message::End => return Ok(()),
                Message::Nothing => {}
            }
        }
    }

    fn order(self, connection: OwnedFd) -> Self {
        if fdpass::peer(&connection).is_err() {
            self.ignore("an order's connection is not a connected unix socket");
            return self;
        }
        self.take(connection)
    }

    fn receive(&self, buffer: &mut [u8], closed: bool) -> io::Result<Message> {
        let ignore = |reason: &str| {
            self.ignore(reason);
            Ok(Message::Nothing)
        };
        let message = match fdpass::receive(&self.door, buffer, 1) {
            Ok(message) => message,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return ignore(&error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Message::End),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(Message::Nothing);
            }
            Err(error) => return Err(error),
        };
        // An empty message reads like the end; only the end hangs up.
        if message.size == 0 && closed {
            return Ok(Message::End);
        }
        let text = buffer.get(..message.size).unwrap_or_default();
        let mut descriptors = message.descriptors.into_iter();
        match (serde_json::from_slice(text), descriptors.next()) {
            _ if message.cut => ignore("a message is larger than the protocol allows"),
            (Ok(Control::Order), Some(connection)) => Ok(Message::Order(connection)),
            (Ok(Control::Order), None) => ignore("an order came without its connection"),
            (Ok(Control::Reload), None) => Ok(Message::Reload),
            (Ok(Control::Hello), None) => Ok(Message::Hello),
            (Ok(Control::Upgrade), None) => Ok(Message::Upgrade),
            (Ok(Control::Versions | Control::Digests), None) => {
                ignore("a word about scripts is for an order's connection")
            }
            (Ok(_), Some(_)) => ignore("a word of control came with a descriptor"),
            (Err(error), _) => ignore(&format!("a message cannot be understood: {error}")),
        }
    }
}

/// One message, whole or not at all.
fn answer(control: &OwnedFd, message: &Reloaded) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    report::write_all(control, &bytes, PATIENCE)
}
