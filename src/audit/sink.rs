//! Where lines go: the system's log, else standard error. Nothing here waits.

use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd as _, OwnedFd};

use super::event::Rendered;
pub(super) use super::socket::Delivery;
use super::socket::{Kind, Socket};
use super::{Ident, Sockets, journal, syslog};
use crate::sys::localtime::LocalTime;
use crate::sys::stderr::Stderr;

pub(super) struct Sink {
    ident: Ident,
    sockets: Option<Sockets>,
    route: Route,
    rest: Rest,
    /// The process that this is.
    pid: u32,
}

enum Route {
    /// This socket.
    Open(Socket),
    /// There was a socket; look for one at each event.
    Lost,
    /// There never was one: standard error is where this system's logs are, as in a container.
    Never,
}

impl Sink {
    pub(super) fn new(ident: Ident, sockets: Option<Sockets>, rest: Rest) -> Self {
        let route = sockets.as_ref().and_then(Socket::connect).map_or(Route::Never, Route::Open);
        Self { ident, sockets, route, rest, pid: std::process::id() }
    }

    /// Delivers one line about what happened at `time` (`None`: now).
    pub(super) fn deliver(&mut self, rendered: &Rendered<'_>, time: Option<LocalTime>) -> Delivery {
        if matches!(self.route, Route::Lost) {
            self.connect();
        }
        for _ in 0..2 {
            let Route::Open(socket) = &self.route else { break };
            match socket.send(&self.packet(socket.kind(), rendered, time)) {
                Delivery::Broken => self.connect(),
                other => return other,
            }
        }
        self.aside(rendered)
    }

    /// Delivers one line that the system's log has no room for. Where there is no such log, that was said already.
    pub(super) fn pass_over(&mut self, rendered: &Rendered<'_>) -> Delivery {
        if matches!(self.route, Route::Open(_)) { self.aside(rendered) } else { Delivery::Full }
    }

    /// Whether nothing waits to be written but what [`Sink::deliver`] did not take.
    pub(super) fn settle(&mut self) -> Delivery {
        self.rest.settle()
    }

    /// Whether this process is a fork of the one that used it last. What is only half written is its parent's then.
    pub(super) fn is_a_fork_s(&mut self) -> bool {
        let before = std::mem::replace(&mut self.pid, std::process::id());
        let forked = before != self.pid;
        if forked && let Rest::Stderr { stderr, begun } = &mut self.rest {
            (*stderr, *begun) = (None, Vec::new());
        }
        forked
    }

    /// What poll(2) can wait for until there is room.
    pub(super) fn waited_for(&self) -> Option<OwnedFd> {
        let descriptor = match (&self.route, &self.rest) {
            (_, Rest::Stderr { stderr: Some(stderr), begun }) if !begun.is_empty() => stderr.as_fd(),
            (Route::Open(socket), _) => socket.as_fd(),
            (_, Rest::Stderr { stderr: Some(stderr), .. }) => stderr.as_fd(),
            (_, Rest::Stderr { stderr: None, .. } | Rest::Writer(_)) => return None,
        };
        descriptor.try_clone_to_owned().ok()
    }

    fn packet(&self, kind: Kind, rendered: &Rendered<'_>, time: Option<LocalTime>) -> Vec<u8> {
        let (ident, pid) = (self.ident.as_str(), self.pid);
        match kind {
            Kind::Journal => journal::datagram(ident, pid, rendered),
            Kind::Syslog => syslog::datagram(ident, pid, time.unwrap_or_else(syslog::now), rendered),
        }
    }

    fn connect(&mut self) {
        self.route = self.sockets.as_ref().and_then(Socket::connect).map_or(Route::Lost, Route::Open);
    }

    fn aside(&mut self, rendered: &Rendered<'_>) -> Delivery {
        self.rest.write(format!("{}: {}\n", self.ident.as_str(), rendered.line).into_bytes())
    }
}

/// Where lines go that no log takes.
pub(super) enum Rest {
    /// Something that never waits.
    Writer(Box<dyn Write + Send>),
    /// Standard error, looked at when it is needed, and what is left of a line that was begun there.
    Stderr { stderr: Option<Stderr>, begun: Vec<u8> },
}

impl Rest {
    pub(super) const fn stderr() -> Self {
        Self::Stderr { stderr: None, begun: Vec::new() }
    }

    /// Writes a line as a whole, if only in the end.
    fn write(&mut self, line: Vec<u8>) -> Delivery {
        match self.settle() {
            Delivery::Sent => {}
            other => return other,
        }
        match self {
            Self::Writer(writer) => match writer.write_all(&line).and_then(|()| writer.flush()) {
                Ok(()) => Delivery::Sent,
                Err(_) => Delivery::Broken,
            },
            Self::Stderr { stderr, begun } => {
                if stderr.is_none() {
                    *stderr = Stderr::open().ok();
                }
                let whole = line.len();
                *begun = line;
                let delivery = self.settle();
                match self {
                    Self::Stderr { begun, .. } if delivery == Delivery::Full && begun.len() == whole => begun.clear(),
                    // Its end follows.
                    _ if delivery == Delivery::Full => return Delivery::Sent,
                    _ => {}
                }
                delivery
            }
        }
    }

    /// Writes what is left of a line.
    fn settle(&mut self) -> Delivery {
        let Self::Stderr { stderr, begun } = self else { return Delivery::Sent };
        let Some(way) = stderr else { return if begun.is_empty() { Delivery::Sent } else { Delivery::Broken } };
        let delivery = loop {
            let written = if begun.is_empty() { way.settle().map(|()| 0) } else { way.write_some(begun) };
            match written {
                Ok(_) if begun.is_empty() => return Delivery::Sent,
                Ok(size) => drop(begun.drain(..size.min(begun.len()))),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Delivery::Full,
                Err(_) => break Delivery::Broken,
            }
        };
        begun.clear();
        delivery
    }
}
