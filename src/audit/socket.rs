//! A connected datagram socket of the system's log.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Sockets;

/// The wait for a log that does not keep up. Once it is over, nothing waits until the log takes a line again: a
/// stuck log must not slow down every event.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Journal,
    Syslog,
}

/// What became of a datagram.
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
    stuck: AtomicBool,
}

impl Socket {
    /// Connects to the journal, else to syslog, if either listens.
    pub(super) fn connect(sockets: &Sockets) -> Option<Self> {
        let to = |kind, path: &Path| {
            let datagram = connected(path).ok()?;
            Some(Self { kind, datagram, stuck: AtomicBool::new(false) })
        };
        to(Kind::Journal, &sockets.journal).or_else(|| to(Kind::Syslog, &sockets.syslog))
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Sends one datagram, waiting for at most [`PATIENCE`].
    pub(super) fn send(&self, bytes: &[u8]) -> Delivery {
        loop {
            match self.datagram.send(bytes) {
                Ok(_) => {
                    self.set_stuck(false);
                    return Delivery::Sent;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.set_stuck(true);
                    return Delivery::Full;
                }
                Err(_) => return Delivery::Broken,
            }
        }
    }

    fn set_stuck(&self, stuck: bool) {
        if self.stuck.swap(stuck, Ordering::Relaxed) != stuck {
            // A socket that refuses this keeps the wait it has, which is bounded.
            let _ = self.datagram.set_nonblocking(stuck);
        }
    }
}

fn connected(path: &Path) -> io::Result<UnixDatagram> {
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.connect(path)?;
    Ok(datagram)
}
