//! The executor as a service of the system: front-ends connect to its socket.
//!
//! Whoever connects is judged by what the kernel says about it (`SO_PEERCRED`, unix(7)) before a byte is read: the
//! agent's account or root, in the process namespace that the executor itself is in. Every connection gets a monitor, which
//! reads its first frame. An order it carries out; a greeting it answers; and a wish for a reload it hands, with the
//! connection, to the executor, over a socket pair that only they have.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Crew, ExecEvent, SIGNALS, ServeError, Server, Way, able, put_in_force, start_afresh};
use crate::executor::confine;
use crate::executor::event::Trail;
use crate::executor::ledger::Ledger;
use crate::executor::policy::Policy;
use crate::executor::report;
use crate::sys::listener::Bound;
use crate::sys::network::HostNetwork;
use crate::sys::notify::Notifier;
use crate::sys::process::{self, Pid, Signals};
use crate::sys::socket::concerns_one_connection;
use crate::sys::user::{self, Account};
use crate::sys::{fdpass, handover, memory, poll};

/// A pause after the system had nothing left for another connection.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Where the service is reached, and by whom.
#[derive(Clone, Debug)]
pub struct Door {
    /// The socket's path, unless the init system hands over a socket.
    pub path: PathBuf,
    /// The front-end's account.
    pub front_end: Account,
}

/// Who made the socket.
enum Ear {
    /// The init system.
    Given(UnixListener),
    /// This process, which takes its name away at its end.
    Ours(Bound),
}

impl Ear {
    const fn listener(&self) -> &UnixListener {
        match self {
            Self::Given(listener) => listener,
            Self::Ours(bound) => bound.listener(),
        }
    }

    /// Where one that was handed over is, whatever was expected; an abstract name as `@` and the name (unix(7)).
    fn place(&self) -> Option<PathBuf> {
        let Self::Given(listener) = self else { return None };
        let address = listener.local_addr().ok()?;
        let name = |name: &[u8]| PathBuf::from(OsString::from_vec([b"@", name].concat()));
        address.as_pathname().map(Path::to_owned).or_else(|| address.as_abstract_name().map(name))
    }
}

/// What connections come through.
struct Entrance {
    ear: Ear,
    /// The executor's own end of what the monitors tell it by, and theirs.
    told: OwnedFd,
    teller: OwnedFd,
    front_end: Account,
    notifier: Notifier,
}

/// Serves front-ends at `door` until a signal asks to end. Monitors go on then. SIGHUP reloads, as does a front-end
/// that asks for it.
///
/// **Invariant:** called in a process with one thread, before it has opened descriptors of its own if the init system
/// hands over a socket.
///
/// # Errors
/// Not running as root, a socket that cannot be put in place, a network that cannot be left, or a configuration that
/// is broken at the start.
pub fn serve_socket(
    door: Door,
    load: impl Fn() -> Result<Policy, String>,
    audit: &impl Trail,
) -> Result<(), ServeError> {
    if !user::is_root() {
        return Err(ServeError::NotRoot);
    }
    let given = handover::unix_listener().map_err(ServeError::Given)?;
    able()?;
    start_afresh(audit);
    // An abstract address is one of the host's network.
    let notifier = Notifier::from_env().map_err(ServeError::Control)?;
    let policy = load().map_err(ServeError::Policy)?;
    let network = HostNetwork::leave().map_err(ServeError::Network)?;
    // Without it, profiles with limits on memory or CPU time are refused, with the reason.
    drop(confine::prepare());
    let signals = Signals::collect(&SIGNALS).map_err(ServeError::Control)?;
    let (told, teller) = fdpass::pair(fdpass::Kind::Messages).map_err(ServeError::Control)?;
    let Door { path, front_end } = door;
    let handed_over = given.is_some();
    let ours = || Bound::new(&path, front_end.uid(), front_end.gid()).map(Ear::Ours);
    let ear = given.map(Ear::Given).map_or_else(ours, Ok).map_err(ServeError::Listen)?;
    let place = ear.place().unwrap_or(path);
    audit.tell(&ExecEvent::Listening { path: &place, handed_over });
    put_in_force(&policy, audit);
    let door = Entrance { ear, told, teller, front_end, notifier };
    let policy = Ok(policy);
    let network = Some(&network);
    let crew = Ledger::new().and_then(|ledger| Crew::new(0, ledger, true)).map_err(ServeError::Control)?;
    // What is only a saving may fail.
    drop(memory::forget_unchanged());
    let server = Server { door, signals, policy, crew, audit, load: &load, network, taken: 0 };
    server.serve().map_err(ServeError::Control)
}

impl Way for Entrance {
    /// A reload must be possible also when all places are taken.
    const SPARE: usize = 16;

    fn teller(self) -> Option<OwnedFd> {
        Some(self.teller)
    }
}

impl Server<'_, Entrance> {
    fn serve(mut self) -> io::Result<()> {
        self.ready();
        loop {
            let again = self.tidy_up();
            let (knocks, words) = (self.door.ear.listener().as_fd(), self.door.told.as_fd());
            let sources = [self.signals.as_fd(), knocks, words];
            let [signal, knock, word] = poll::readable(sources.map(Some), again)?;
            if signal.readable || self.crew.is_behind() {
                let asked = self.signalled()?;
                if asked.end {
                    break;
                }
                if asked.reload {
                    // The log has it.
                    let _ = self.door.notifier.reloading();
                    self.reload();
                    self.ready();
                }
            }
            if word.readable {
                self.told()?;
            }
            if knock.readable {
                self = self.knocked()?;
            }
        }
        let _ = self.door.notifier.stopping();
        if let Ear::Ours(bound) = &self.door.ear {
            bound.remove();
        }
        Ok(())
    }

    /// What cannot be told to the service manager is no reason to stay away.
    fn ready(&self) {
        let _ = self.door.notifier.ready("waiting for orders", &[]);
    }

    /// Takes one connection in.
    fn knocked(self) -> io::Result<Self> {
        let connection: OwnedFd = match self.door.ear.listener().accept() {
            Ok((connection, _)) => connection.into(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || concerns_one_connection(&error) => {
                return Ok(self);
            }
            Err(error) => {
                self.ignore(&format!("a connection cannot be taken: {error}"));
                poll::readable([Some(self.signals.as_fd())], Some(EXHAUSTED))?;
                return Ok(self);
            }
        };
        let Ok(peer) = fdpass::peer(&connection) else { return Ok(self) };
        let known = peer.uid == self.door.front_end.uid() || peer.uid.is_root();
        // A script has come to the socket in a way that nobody thought of. It may be root, who may look and reload, or have
        // become the front-end's account (`CAP_SETUID`).
        let further_in = || !process::is_a_neighbour(Pid::from_raw(peer.pid)).unwrap_or(false);
        if !known || further_in() {
            self.audit.tell(&ExecEvent::Stranger { uid: peer.uid.as_raw(), pid: peer.pid });
            return Ok(self);
        }
        Ok(self.take(connection))
    }

    /// A monitor hands over the connection of a front-end that wants a reload.
    fn told(&mut self) -> io::Result<()> {
        let message = fdpass::receive(&self.door.told, &mut [0; 1], 1)?;
        let Some(connection) = message.descriptors.into_iter().next() else { return Ok(()) };
        let reloaded = self.reload();
        // A fresh socket has room for it; and a front-end that has gone away does not miss it.
        drop(report::answer_now(&connection, &reloaded));
        Ok(())
    }
}
