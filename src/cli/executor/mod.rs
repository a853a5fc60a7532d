//! `ctrl-exec-exec`: the root executor as a service of the system, and what it would decide.
//!
//! Words are read here and not by clap: this process must stay small.

pub mod child;

use std::cell::LazyCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::audit::{Ident, Logger, Sockets};
use crate::cli::out;
use crate::conf::agent::Settings;
use crate::conf::{Account as Configured, Root, Source};
use crate::executor::{self, Door, ExecEvent, Policy, Rights, ServeError, Trail};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::file;
use crate::sys::listener::BindError;
use crate::sys::user::{self, Account, Uid};

/// Where the service listens if nothing else is said.
const SOCKET: &str = "/run/ctrl-exec-agent/exec.sock";
/// Largest configuration file that is read, in bytes.
const LIMIT: usize = 2 * 1024 * 1024;

const USAGE: &str = "\
Usage: ctrl-exec-exec serve SOCKET AGENT.CONF SCRIPTS.CONF USER
       ctrl-exec-exec resolve AGENT.CONF SCRIPTS.CONF NAME
       ctrl-exec serve-executor [SOCKET AGENT.CONF SCRIPTS.CONF USER]

The root executor of an agent: runs the scripts that the agent orders, each in the confinement of its profile.

serve     take orders from the account USER (and root) at SOCKET, or at the socket that the init system hands over
resolve   say what would be decided about the script NAME

Without words, serve-executor uses /run/ctrl-exec-agent/exec.sock, the files below /etc/ctrl-exec-agent, and the
account that 'user' in agent.conf names. CTRL_EXEC_ROOT names a directory that stands for / in these paths.";

/// `ctrl-exec-exec`, with a verb.
#[must_use]
pub fn start(words: &[OsString]) -> Exit {
    let text: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    match (words, text.as_slice()) {
        (_, ["--version" | "-V", ..]) => {
            out::line(format!("ctrl-exec-exec {}", env!("CARGO_PKG_VERSION")));
            Exit::Success
        }
        (_, ["--help" | "-h", ..]) => {
            out::line(USAGE);
            Exit::Success
        }
        ([_, config, allowlist, _], ["resolve", .., name]) => resolve(Path::new(config), Path::new(allowlist), name),
        ([_, socket, config, allowlist, _], ["serve", .., user]) => {
            serve(Path::new(socket), Path::new(config), Path::new(allowlist), Some(user))
        }
        _ => {
            out::error(USAGE);
            Exit::Failed
        }
    }
}

/// `ctrl-exec serve-executor`: as `ctrl-exec-exec serve`, with a default for everything.
#[must_use]
pub fn service(words: &[OsString]) -> Exit {
    match words.first().and_then(|word| word.to_str()) {
        None if words.is_empty() => {
            let root = root();
            let (config, allowlist) = (root.path(Settings::DEFAULT_PATH), root.path(Settings::DEFAULT_SCRIPTS_PATH));
            serve(&root.path(SOCKET), &config, &allowlist, None)
        }
        Some("serve" | "resolve" | "--version" | "-V" | "--help" | "-h") => start(words),
        _ => start(&[&[OsString::from("serve")], words].concat()),
    }
}

fn root() -> Root {
    Root::new(std::env::var_os(Root::ENV).map(|prefix| from_here(Path::new(&prefix))))
}

/// A path that means the same wherever a process is: no file is trusted that is found by where the service was started.
fn from_here(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn resolve(config: &Path, allowlist: &Path, name: &str) -> Exit {
    match executor::resolve(config, allowlist, &root(), name) {
        Ok((line, reason)) => {
            out::line(line);
            if let Some(reason) = reason {
                out::error(reason);
            }
            Exit::Success
        }
        Err(text) => {
            out::error(text);
            Exit::Unreadable
        }
    }
}

fn serve(socket: &Path, config: &Path, allowlist: &Path, user: Option<&str>) -> Exit {
    run(socket, &from_here(config), &from_here(allowlist), user).map_or_else(
        |failure| {
            out::error(format!("Error: {failure}"));
            failure.exit()
        },
        |()| Exit::Success,
    )
}

fn run(socket: &Path, config: &Path, allowlist: &Path, user: Option<&str>) -> Result<(), Failure> {
    if !user::is_root() {
        return Err(failed(ServeError::NotRoot));
    }
    let root = root();
    let front_end = front_end(config, &root, user)?;
    let door = Door { path: socket.to_owned(), front_end: front_end.clone() };
    let rights = Rights::Root { front_end: Some(&front_end), socket: Some(socket) };
    // Opened at the first event: a socket that the init system hands over must be taken first.
    let log = LazyCell::new(|| Logger::open(Ident::Executor, Sockets::new(|place| root.path(place))));
    executor::serve_socket(door, || Policy::load(config, allowlist, &root, rights), &Later(&log)).map_err(failed)
}

/// A log that is opened when something happens.
struct Later<'a, F>(&'a LazyCell<Logger, F>);

impl<F: FnOnce() -> Logger> Trail for Later<'_, F> {
    fn tell(&self, event: &ExecEvent<'_>) {
        self.0.tell(event);
    }

    fn settle(&self, limit: Duration) -> u64 {
        self.0.settle(limit)
    }

    fn count(&self, events: u64) {
        self.0.count(events);
    }
}

/// The account that gives orders: by name, or the one that `agent.conf` names.
fn front_end(config: &Path, root: &Root, user: Option<&str>) -> Result<Account, Failure> {
    let broken = |text: String| Failure::new(Exit::Config, std::io::Error::other(text));
    let wanted = if let Some(user) = user {
        Configured::Name(user.to_owned())
    } else {
        let opened = file::open_trusted(config).map_err(|error| Failure::new(Exit::Config, error))?;
        let bytes = file::read_open(&opened, config, LIMIT).map_err(|error| Failure::new(Exit::Config, error))?;
        let parsed = Settings::parse(&Source::new(config, bytes), root);
        parsed.map_err(|errors| broken(errors.to_string()))?.0.user.into_inner()
    };
    let found = match &wanted {
        Configured::Name(name) => Account::by_name(name),
        Configured::Id(id) => Account::by_uid(Uid::from_raw(*id)),
    };
    let found = found.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    found.ok_or_else(|| {
        let hint = "name the account that the agent runs as, or make it: useradd --system ctrl-exec-agent";
        broken(format!("the account '{wanted}' does not exist")).hint(hint)
    })
}

/// How a service ends that does not serve.
fn failed(error: ServeError) -> Failure {
    let (exit, hint) = ending(&error);
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// With which status, and what to do about it.
fn ending(error: &ServeError) -> (Exit, Option<&'static str>) {
    match error {
        ServeError::Told(error) => ending(error),
        // Another start would end the same way.
        ServeError::Root | ServeError::Policy(_) | ServeError::Incapable(_) => (Exit::Config, None),
        ServeError::NotRoot => (Exit::Permission, None),
        ServeError::Network(_) => (
            Exit::Permission,
            Some("a filter of system calls, or a security module, may keep it from that: unshare(2)"),
        ),
        ServeError::Listen(BindError::InUse(_)) => {
            (Exit::Unavailable, Some("another executor serves this host already: stop it first"))
        }
        ServeError::Listen(BindError::Relative(_)) => {
            (Exit::Usage, Some("name the socket from / on, such as /run/ctrl-exec-agent/exec.sock"))
        }
        ServeError::Given(_) => {
            (Exit::Unavailable, Some("the executor's socket unit has one line ListenStream= with a path"))
        }
        ServeError::Listen(_) | ServeError::Control(_) => (Exit::Unavailable, None),
    }
}
