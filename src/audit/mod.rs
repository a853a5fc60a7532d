//! One event, one line: `ACTION=... KEY=value ...` to the journal, to syslog or to standard error.
//!
//! Which of the three is chosen when the [`Logger`] is opened: the journal if its socket takes a connection, else
//! syslog's, else standard error. A socket that goes away is connected again once; a line that no socket took goes
//! to standard error, so none is ever silently lost. Nothing here blocks for longer than a second.
//!
//! Both sockets lie below the prefix that the caller gives, which is why the journal's protocol is written here: the
//! crates that speak it know one fixed path. Besides, the executor must log without a runtime and with few crates.

mod event;
mod journal;
mod socket;
mod syslog;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event::Rendered;
pub use event::{Event, Level};
use socket::{Delivery, Kind, Socket};

/// The name a process logs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ident {
    /// `ctrl-exec-dispatcher`: the command line.
    Dispatcher,
    /// `ctrl-exec-api`.
    Api,
    /// `ctrl-exec-agent`.
    Agent,
    /// `ctrl-exec-exec`.
    Executor,
}

impl Ident {
    /// The name as syslog shows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dispatcher => "ctrl-exec-dispatcher",
            Self::Api => "ctrl-exec-api",
            Self::Agent => "ctrl-exec-agent",
            Self::Executor => "ctrl-exec-exec",
        }
    }
}

/// Where the system's logs listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// The journal's native socket.
    pub journal: PathBuf,
    /// Syslog's datagram socket.
    pub syslog: PathBuf,
}

impl Sockets {
    /// The usual two, each as `place` puts it below the caller's prefix.
    pub fn new(place: impl Fn(&str) -> PathBuf) -> Self {
        Self { journal: place("/run/systemd/journal/socket"), syslog: place("/dev/log") }
    }
}

/// Writes events. A clone writes to the same place.
#[derive(Clone)]
pub struct Logger(Arc<Inner>);

struct Inner {
    ident: Ident,
    sockets: Option<Sockets>,
    route: Mutex<Route>,
    last_resort: Mutex<Box<dyn Write + Send>>,
}

enum Route {
    /// This socket.
    Open(Arc<Socket>),
    /// There was a socket; look for one at each event.
    Lost,
    /// There never was one: standard error is where this system's logs are, as in a container.
    Never,
}

impl Logger {
    /// A logger for `ident`, through the first of `sockets` that answers.
    #[must_use]
    pub fn open(ident: Ident, sockets: Sockets) -> Self {
        Self::with_last_resort(ident, Some(sockets), Box::new(std::io::stderr()))
    }

    /// A logger that writes `ident: line` to `writer` and knows no socket.
    #[must_use]
    pub fn to_writer(ident: Ident, writer: Box<dyn Write + Send>) -> Self {
        Self::with_last_resort(ident, None, writer)
    }

    fn with_last_resort(ident: Ident, sockets: Option<Sockets>, writer: Box<dyn Write + Send>) -> Self {
        let route = sockets.as_ref().and_then(Socket::connect).map_or(Route::Never, |s| Route::Open(Arc::new(s)));
        Self(Arc::new(Inner { ident, sockets, route: Mutex::new(route), last_resort: Mutex::new(writer) }))
    }

    /// Writes one event: one datagram, or one line on standard error.
    #[expect(clippy::needless_pass_by_value, reason = "an event happens once: whoever emits it is done with it")]
    pub fn emit(&self, event: Event) {
        let rendered = event.render();
        if !self.sent(&rendered) {
            let line = format!("{}: {}\n", self.0.ident.as_str(), rendered.line);
            let mut writer = locked(&self.0.last_resort);
            // Nothing is left to tell a failure to.
            let _ = writer.write_all(line.as_bytes()).and_then(|()| writer.flush());
        }
    }

    fn sent(&self, rendered: &Rendered<'_>) -> bool {
        let Some(socket) = self.socket() else { return false };
        match socket.send(&self.packet(socket.kind(), rendered)) {
            Delivery::Sent => true,
            Delivery::Full => false,
            Delivery::Broken => self
                .reconnected()
                .is_some_and(|socket| matches!(socket.send(&self.packet(socket.kind(), rendered)), Delivery::Sent)),
        }
    }

    fn packet(&self, kind: Kind, rendered: &Rendered<'_>) -> Vec<u8> {
        // Asked each time: the executor forks.
        let pid = std::process::id();
        match kind {
            Kind::Journal => journal::datagram(self.0.ident.as_str(), pid, rendered),
            Kind::Syslog => syslog::datagram(self.0.ident.as_str(), pid, syslog::now(), rendered),
        }
    }

    /// The lock is held for the look alone, never while something is sent.
    fn socket(&self) -> Option<Arc<Socket>> {
        match &*locked(&self.0.route) {
            Route::Open(socket) => return Some(Arc::clone(socket)),
            Route::Never => return None,
            Route::Lost => {}
        }
        self.reconnected()
    }

    fn reconnected(&self) -> Option<Arc<Socket>> {
        let fresh = self.0.sockets.as_ref().and_then(Socket::connect).map(Arc::new);
        *locked(&self.0.route) = fresh.clone().map_or(Route::Lost, Route::Open);
        fresh
    }
}

/// What these locks guard is whole at any time, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("ident", &self.0.ident).field("sockets", &self.0.sockets).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
