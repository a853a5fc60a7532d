//! A connected datagram socket of the system's log, which never waits.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::Sockets;

/// What the listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Journal,
    Syslog,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The listener has it.
    Sent,
    /// The listener does not keep up.
    Full,
    /// The listener is gone, or was replaced.
    Broken,
}

pub(super) struct Socket {
    kind: Kind,
    datagram: UnixDatagram,
}

impl Socket {
    /// Connects to the journal, else to syslog, if either listens.
    pub(super) fn connect(sockets: &Sockets) -> Option<Self> {
        let to = |kind, path: &Path| Some(Self { kind, datagram: connected(path).ok()? });
        to(Kind::Journal, &sockets.journal).or_else(|| to(Kind::Syslog, &sockets.syslog))
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Sends one datagram, if there is room for it now.
    pub(super) fn send(&self, bytes: &[u8]) -> Delivery {
        loop {
            match self.datagram.send(bytes) {
                Ok(_) => return Delivery::Sent,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Delivery::Full,
                Err(_) => return Delivery::Broken,
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.datagram.as_fd()
    }
}

fn connected(path: &Path) -> io::Result<UnixDatagram> {
    let datagram = UnixDatagram::unbound()?;
    datagram.connect(path)?;
    datagram.set_nonblocking(true)?;
    Ok(datagram)
}
