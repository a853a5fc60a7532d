//! Telling the outcome: to the connection, and for a detached order to its status file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys::{fdpass, poll};
use crate::wire::control::{self, Contents, Reloaded};
use crate::wire::frame;
use crate::wire::limits;
use crate::wire::order::Report;
use crate::wire::outcome::Noted;

/// How long a front-end that does not read may hold up a report. An idle socket takes both reports of an order at
/// once, so this passes only where something is wrong.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends reports, as one piece.
///
/// # Errors
/// The front-end is gone or does not read. The order's fate does not depend on it.
pub(super) fn send(connection: &OwnedFd, reports: &[Report]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for report in reports {
        bytes.extend(frame::encode(report, limits::REPORT).map_err(io::Error::other)?);
    }
    write_all(connection, &bytes, PATIENCE)
}

/// As [`send`], without any patience.
///
/// # Errors
/// As [`send`].
pub(super) fn send_now(connection: &OwnedFd, report: &Report) -> io::Result<()> {
    let bytes = frame::encode(report, limits::REPORT).map_err(io::Error::other)?;
    write_all(connection, &bytes, Duration::ZERO)
}

/// Answers a word of control, without any patience.
///
/// # Errors
/// As [`send`].
pub(super) fn answer_now(connection: &OwnedFd, answer: &Reloaded) -> io::Result<()> {
    let bytes = frame::encode(answer, control::LIMIT).map_err(io::Error::other)?;
    write_all(connection, &bytes, Duration::ZERO)
}

/// Says what is known of scripts' files.
///
/// # Errors
/// As [`send`], or there are too many of them.
pub(super) fn tell_contents(connection: &OwnedFd, contents: &Contents) -> io::Result<()> {
    let bytes = frame::encode(contents, Contents::LIMIT).map_err(io::Error::other)?;
    write_all(connection, &bytes, PATIENCE)
}

/// Sends bytes to a socket that may be slow, but not for ever.
pub(super) fn write_all(socket: &OwnedFd, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    while !bytes.is_empty() {
        match fdpass::send_now(socket, bytes) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = deadline.saturating_duration_since(Instant::now());
                if !poll::writable(socket.as_fd(), left)? && left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes the outcome as one line of JSON and waits until it is on the disk.
///
/// # Errors
/// The file cannot be written. A reader sees then that the line is missing or not whole.
pub(super) fn write_status(status: &OwnedFd, noted: &Noted) -> io::Result<()> {
    let mut line = serde_json::to_vec(noted)?;
    line.push(b'\n');
    let mut file = File::from(status.try_clone()?);
    file.write_all(&line)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::outcome::Outcome;

    #[test]
    fn a_front_end_that_never_reads_does_not_hold_the_report_for_ever() {
        let (ours, _theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        let result = write_all(&ours, &vec![0; 8 << 20], Duration::from_millis(20));
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_front_end_that_is_gone_is_an_error_and_no_signal() {
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        drop(theirs);
        let result = send(&ours, &[Report::Ended(Outcome::Cancelled)]);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
