//! One event, one line: `ACTION=... KEY=value ...` to the journal, to syslog or to standard error.
//!
//! Which of the three is chosen when the [`Logger`] is opened: the journal if its socket takes a connection, else
//! syslog's, else standard error. A socket that goes away is connected again once; a line that no socket took goes
//! to standard error.
//!
//! **Invariant:** a log that is not read keeps nobody waiting. A line is written at once, by whoever has it, if the log
//! takes it at once. If not, it waits with those behind it, in their order and up to a bound; what is over goes to
//! standard error, and what that does not take is counted: `log-lost` tells how many, where they would have stood. A
//! program that serves has a thread for lines that wait, from the first one on ([`Logger::serving`]); one that must stay
//! a single thread writes them at its next event, at [`Logger::flush`] and at its end. What the system's log
//! has not taken by then is counted on standard error; a program that becomes another one has that one tell the count.
//!
//! Both sockets lie below the prefix that the caller gives, which is why the journal's protocol is written here: the
//! crates that speak it know one fixed path. Besides, the executor must log without a runtime and with few crates.

mod backlog;
mod event;
mod journal;
mod sink;
mod socket;
mod syslog;
mod writer;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use event::{Event, Level};
use sink::{Rest, Sink};
use writer::Shared;

/// How long the end of a logger waits for a log that does not keep up.
pub const FAREWELL: Duration = Duration::from_secs(1);

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

/// Writes events. A clone writes to the same place. The end of the last one waits a moment ([`FAREWELL`]) for lines that
/// were not taken yet.
#[derive(Clone)]
pub struct Logger(Arc<Handle>);

struct Handle {
    ident: Ident,
    shared: Arc<Shared>,
}

impl Logger {
    /// A logger for `ident`, through the first of `sockets` that answers. It makes no thread.
    #[must_use]
    pub fn open(ident: Ident, sockets: Sockets) -> Self {
        Self::new(ident, Some(sockets), Rest::stderr(), false)
    }

    /// The same for a program that serves: lines that the log does not take at once have a thread that writes them later.
    ///
    /// **Invariant:** not for a process that forks.
    #[must_use]
    pub fn serving(ident: Ident, sockets: Sockets) -> Self {
        Self::new(ident, Some(sockets), Rest::stderr(), true)
    }

    /// A logger that writes `ident: line` to `writer`, which must not wait for anybody, and knows no socket.
    #[must_use]
    pub fn to_writer(ident: Ident, writer: Box<dyn Write + Send>) -> Self {
        Self::new(ident, None, Rest::Writer(writer), false)
    }

    fn new(ident: Ident, sockets: Option<Sockets>, rest: Rest, serves: bool) -> Self {
        let shared = Shared::new(Sink::new(ident, sockets, rest), serves);
        Self(Arc::new(Handle { ident, shared: Arc::new(shared) }))
    }

    /// Writes one event: one datagram, or one line on standard error; at once or, if the log does not take it, later.
    pub fn emit(&self, event: Event) {
        self.0.shared.emit(event);
    }

    /// Writes what waits, at most for `limit`; how many lines nobody will hear of if this process ends now.
    #[expect(clippy::must_use_candidate, reason = "whoever goes on hears of what is lost later")]
    pub fn flush(&self, limit: Duration) -> u64 {
        if self.0.shared.flush(limit) { 0 } else { self.0.shared.at_stake() }
    }

    /// Writes what waits, at most for `limit`, and then how many lines are lost with this program, where that can be
    /// written: on standard error, if it is the system's log that does not take them.
    pub fn farewell(&self, limit: Duration) {
        self.0.shared.farewell(limit);
    }

    /// Standard error is another one from now on: what was opened of the one before is closed.
    pub fn forget_stderr(&self) {
        self.0.shared.forget_stderr();
    }

    /// Lines that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.shared.waiting()
    }

    /// Lines that were lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.0.shared.lost()
    }

    /// Another process has lost so many lines, which is told here.
    pub fn count_lost(&self, lines: u64) {
        self.0.shared.count_lost(lines);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(FAREWELL);
    }
}

/// What these locks guard is whole at any time, so a panic elsewhere does not spoil it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Logger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logger").field("ident", &self.0.ident).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
