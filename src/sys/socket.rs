//! Socket options and errors that the standard library does not name.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc as c;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// A silent peer's kernel is asked for a sign of life after so many seconds, again after so many more, and so often
/// (tcp(7): `TCP_KEEPIDLE`, `TCP_KEEPINTVL`, `TCP_KEEPCNT`).
const SIGN_OF_LIFE: (u32, u32, u32) = (15, 5, 3);
/// How long a peer's kernel may take none of what is sent, in milliseconds (tcp(7): `TCP_USER_TIMEOUT`). Where it is set,
/// the count of signs of life that did not come is not what decides, but this is.
const UNTAKEN: u32 = 60_000;

/// Sees to it that a peer that is gone without a word, as by a cut cable, is found within a minute. The sockets that a
/// listener accepts are like it in this.
pub fn watch_for_loss(socket: &impl AsFd) -> io::Result<()> {
    let (idle, interval, count) = SIGN_OF_LIFE;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(socket, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(socket, sockopt::TcpKeepCount, &count)?;
    Ok(setsockopt(socket, sockopt::TcpUserTimeout, &UNTAKEN)?)
}

/// Whether the peer will send nothing more, or is gone, however much of what he has sent waits to be read.
#[must_use]
pub fn has_hung_up(socket: &impl AsFd) -> bool {
    // poll(2): a Linux flag, which nix does not name. It takes an answer with it for one with unknown flags.
    let asked = PollFlags::from_bits_retain(c::POLLRDHUP);
    let mut polled = [PollFd::new(socket.as_fd(), asked)];
    matches!(poll(&mut polled, PollTimeout::ZERO), Ok(found) if found > 0)
}

/// Sets `IPV6_V6ONLY` (ipv6(7)), whose default is a sysctl of the host.
pub fn set_v6_only(socket: &impl AsFd, only: bool) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv6V6Only, &only)?)
}

/// Has the kernel end a TCP connection whose peer takes nothing of what waits for it for so long, or acknowledges nothing,
/// where that is less than the minute of [`watch_for_loss`]. To the millisecond.
pub fn end_when_stalled(socket: &impl AsFd, patience: Duration) -> io::Result<()> {
    match u32::try_from(patience.as_millis()) {
        Ok(milliseconds @ ..UNTAKEN) => Ok(setsockopt(socket, sockopt::TcpUserTimeout, &milliseconds)?),
        _ => Ok(()),
    }
}

/// Whether an error of socket(2) or bind(2) says that the host has no IPv6.
#[must_use]
pub fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(c::EAFNOSUPPORT | c::EADDRNOTAVAIL))
}

/// Whether an error of accept(2) belongs to the connection that failed and not to the listener.
#[must_use]
pub fn concerns_one_connection(error: &io::Error) -> bool {
    let of_network = [c::ENETDOWN, c::EPROTO, c::ENOPROTOOPT, c::EHOSTDOWN, c::ENONET, c::EHOSTUNREACH, c::ENETUNREACH];
    let of_peer = [c::ECONNABORTED, c::ECONNRESET, c::EINTR, c::EOPNOTSUPP, c::EPERM];
    error.raw_os_error().is_some_and(|code| of_network.contains(&code) || of_peer.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use nix::sys::socket::getsockopt;

    use super::*;

    #[test]
    fn a_peer_that_has_hung_up_is_found_behind_what_he_has_sent() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"unread").unwrap();
        assert!(!has_hung_up(&server));
        client.shutdown(Shutdown::Write).unwrap();
        // Loopback hands it over within the call.
        assert!(has_hung_up(&server));
    }

    #[test]
    fn what_a_listener_accepts_watches_for_loss_as_it_does() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        watch_for_loss(&listener).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert!(getsockopt(&server, sockopt::KeepAlive).unwrap());
        let (idle, interval, count) = SIGN_OF_LIFE;
        assert_eq!(getsockopt(&server, sockopt::TcpKeepIdle).unwrap(), idle);
        assert_eq!(getsockopt(&server, sockopt::TcpKeepInterval).unwrap(), interval);
        assert_eq!(getsockopt(&server, sockopt::TcpKeepCount).unwrap(), count);
        assert_eq!(getsockopt(&server, sockopt::TcpUserTimeout).unwrap(), UNTAKEN);
    }
}
