//! Socket options and errors that the standard library does not name.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::libc as c;
use nix::sys::socket::{setsockopt, sockopt};

/// Sets `IPV6_V6ONLY` (ipv6(7)), whose default is a sysctl of the host.
pub fn set_v6_only(socket: &impl AsFd, only: bool) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Ipv6V6Only, &only)?)
}

/// Has the kernel end a TCP connection whose peer takes nothing of what waits for it for so long, or acknowledges nothing
/// (`TCP_USER_TIMEOUT`, tcp(7)). To the millisecond, and at most 49 days.
pub fn end_when_stalled(socket: &impl AsFd, patience: Duration) -> io::Result<()> {
    let milliseconds = u32::try_from(patience.as_millis()).unwrap_or(u32::MAX);
    Ok(setsockopt(socket, sockopt::TcpUserTimeout, &milliseconds)?)
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
