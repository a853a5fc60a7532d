//! Waiting for several descriptors at once (poll(2)).

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What became of one descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// A read returns at once: data, the end or an error.
    pub readable: bool,
    /// The other end is gone.
    pub closed: bool,
}

/// Waits until one of the descriptors is readable, at most for `limit` (`None`: for ever). Absent ones are never
/// ready. A signal ends the wait early, with nothing ready.
///
/// # Errors
/// Out of memory.
pub fn readable<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    limit: Option<Duration>,
) -> io::Result<[Ready; N]> {
    Ok(readable_or_changed(descriptors, None, limit)?.0)
}

/// As [`readable`], and besides until a file of the kernel's that can always be read tells that it reads differently
/// (`POLLPRI`); whether it did. It is told once.
///
/// # Errors
/// As [`readable`].
pub fn readable_or_changed<const N: usize>(
    descriptors: [Option<BorrowedFd<'_>>; N],
    changing: Option<BorrowedFd<'_>>,
    limit: Option<Duration>,
) -> io::Result<([Ready; N], bool)> {
    let present = descriptors.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
    let changing = changing.map(|fd| PollFd::new(fd, PollFlags::POLLPRI));
    let mut polled: Vec<PollFd<'_>> = present.chain(changing).collect();
    wait(&mut polled, limit)?;
    let mut results = polled.iter().map(|entry| entry.revents().unwrap_or(PollFlags::empty()));
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    let ready = descriptors.map(|descriptor| {
        let found = descriptor.and_then(|_| results.next()).unwrap_or(PollFlags::empty());
        Ready { readable: !found.is_empty(), closed: found.intersects(gone) }
    });
    Ok((ready, results.next().is_some_and(|found| !found.is_empty())))
}

/// Whether the other end of a socket goes away within `limit`. Messages that wait to be read do not end the wait.
///
/// # Errors
/// Out of memory.
pub fn closed(descriptor: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    any_closed([descriptor], limit)
}

/// The same of any of several.
///
/// # Errors
/// Out of memory.
pub fn any_closed<const N: usize>(descriptors: [BorrowedFd<'_>; N], limit: Duration) -> io::Result<bool> {
    // POLLHUP and POLLERR are told without being asked for, poll(2).
    let mut polled = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::empty()));
    wait(&mut polled, Some(limit))?;
    Ok(polled.iter().any(|entry| entry.any().unwrap_or(false)))
}

/// Waits until a write to the descriptor returns at once; whether it does within `limit`.
///
/// # Errors
/// Out of memory.
pub fn writable(descriptor: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    wait(&mut polled, Some(limit))?;
    Ok(polled.iter().any(|entry| entry.any().unwrap_or(false)))
}

/// Rounds up to milliseconds: rounding down would turn the last one into a busy loop.
fn wait(polled: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let timeout = limit.map_or(PollTimeout::NONE, |limit| {
        let millis = limit.as_nanos().div_ceil(1_000_000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    match poll(polled, timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::fdpass::{self, Kind};
    use crate::sys::pipe;

    #[test]
    fn data_and_the_end_are_told_apart_and_absent_descriptors_keep_their_place() {
        let (left, right) = fdpass::pair(Kind::Stream).unwrap();
        let (quiet, _writer) = pipe::pipe().unwrap();
        let both = |limit| readable([Some(quiet.as_fd()), None, Some(right.as_fd())], limit).unwrap();
        assert_eq!(both(Some(Duration::ZERO)), [Ready::default(); 3]);
        fdpass::send(&left, b"x", &[]).unwrap();
        assert_eq!(both(None), [Ready::default(), Ready::default(), Ready { readable: true, closed: false }]);
        drop(left);
        assert!(both(None)[2].closed);
    }

    #[test]
    fn a_full_pipe_is_not_writable() {
        let (_reader, writer) = pipe::pipe().unwrap();
        assert!(writable(writer.as_fd(), Duration::ZERO).unwrap());
        pipe::set_nonblocking(&writer, true).unwrap();
        while nix::unistd::write(&writer, &[0; 4096]).is_ok() {}
        assert!(!writable(writer.as_fd(), Duration::from_micros(1)).unwrap());
    }
}
