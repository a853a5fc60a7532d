//! Standard error, written to without ever waiting for who reads it.
//!
//! `O_NONBLOCK` belongs to the open file, which a service shares with its children, its starter and a terminal's shell,
//! and so is never set on it. What does instead depends on what standard error is:
//!
//! | standard error | written to by |
//! |---|---|
//! | a socket, as a service manager gives | send(2) with `MSG_DONTWAIT` |
//! | a pipe or a terminal that this user may open | an open file of its own, from `/proc/self/fd/2` |
//! | a pipe of another user's, as in a container | splice(2) with `SPLICE_F_NONBLOCK`, from a pipe of its own |
//! | a terminal of another user's | write(2) when poll(2) says that there is room |
//! | a regular file or `/dev/null` | write(2): there is always room |

use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::libc;
use nix::sys::socket::{MsgFlags, send};
use nix::unistd;

use super::pipe::{self, Thing};
use super::poll;

/// So much a pipe takes as one piece, or not at all (pipe(7)).
const PIECE: usize = 4096;

/// A way to standard error.
#[derive(Debug)]
pub struct Stderr {
    target: OwnedFd,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// It never keeps anybody waiting.
    Steady,
    /// The target is an open file of our own, which does not wait.
    Own,
    Socket,
    /// What is to go there waits in this pipe, and is moved: its reading and its writing end.
    Moved(OwnedFd, OwnedFd),
    /// There is no better way.
    Polled,
}

impl Stderr {
    /// This process's standard error.
    ///
    /// # Errors
    /// It is closed, or the process is out of descriptors.
    pub fn open() -> io::Result<Self> {
        Self::to(io::stderr().as_fd())
    }

    fn to(target: BorrowedFd<'_>) -> io::Result<Self> {
        let target = target.try_clone_to_owned()?;
        let kind = pipe::kind(&target)?;
        let way = match kind.thing {
            Thing::File => Way::Steady,
            Thing::Other => Way::Socket,
            Thing::Pipe | Thing::Device => match again(&target) {
                Ok(own) => return Ok(Self { target: own, way: Way::Own }),
                Err(_) if kind.thing == Thing::Pipe => moved()?,
                Err(_) => Way::Polled,
            },
        };
        Ok(Self { target, way })
    }

    /// Writes what there is room for now: how many bytes.
    ///
    /// # Errors
    /// `WouldBlock` where there is no room now, and whatever else the system has to say.
    pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.way {
            Way::Steady | Way::Own => pipe::write_some(&self.target, bytes),
            Way::Socket => self.sent(bytes),
            Way::Moved(reader, writer) => {
                self.move_on(reader)?;
                let size = pipe::write_some(writer, bytes)?;
                match self.move_on(reader) {
                    // It is on its way.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(size),
                    other => other.map(|()| size),
                }
            }
            Way::Polled if !poll::writable(self.target.as_fd(), Duration::ZERO)? => Err(ErrorKind::WouldBlock.into()),
            Way::Polled => pipe::write_some(&self.target, bytes.get(..PIECE).unwrap_or(bytes)),
        }
    }

    /// Whether everything that was taken has arrived, as far as that can be said now.
    ///
    /// # Errors
    /// As [`Stderr::write_some`].
    pub fn settle(&self) -> io::Result<()> {
        if let Way::Moved(reader, _) = &self.way { self.move_on(reader) } else { Ok(()) }
    }

    /// What poll(2) can wait for until there is room.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    fn sent(&self, bytes: &[u8]) -> io::Result<usize> {
        use std::os::fd::AsRawFd as _;
        match send(self.target.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
            // Neither a socket nor anything else that is known here.
            Err(nix::errno::Errno::ENOTSOCK) => pipe::write_some(&self.target, bytes),
            other => Ok(other?),
        }
    }

    /// Moves what waits in our own pipe.
    fn move_on(&self, reader: &OwnedFd) -> io::Result<()> {
        let waits = || poll::readable([Some(reader.as_fd())], Some(Duration::ZERO)).map(|[ready]| ready.readable);
        while waits()? {
            splice(reader, None, &self.target, None, usize::from(u16::MAX), SpliceFFlags::SPLICE_F_NONBLOCK)?;
        }
        Ok(())
    }
}

/// The same thing, opened anew.
fn again(target: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path).map(OwnedFd::from)
}

fn moved() -> io::Result<Way> {
    let (reader, writer) = unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok(Way::Moved(reader, writer))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Fills a way until it takes no more, then reads everything: what was taken arrives, in its order.
    fn takes_what_it_can(stderr: &Stderr, mut reader: File) {
        let mut taken: Vec<u8> = Vec::new();
        for line in 0..1_000_000 {
            let text = format!("line {line}\n");
            match stderr.write_some(text.as_bytes()) {
                Ok(size) => taken.extend(&text.as_bytes()[..size]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(taken.len() > 100, "{}", taken.len());
        let mut heard: Vec<u8> = Vec::new();
        while heard.len() < taken.len() {
            let mut buffer = [0; 4096];
            let size = reader.read(&mut buffer).unwrap();
            heard.extend(&buffer[..size]);
            drop(stderr.settle());
        }
        assert!(heard == taken, "{} and {}", heard.len(), taken.len());
    }

    #[test]
    fn a_pipe_that_nobody_reads_keeps_nobody_waiting() {
        let (reader, writer) = pipe::pipe().unwrap();
        let stderr = Stderr::to(writer.as_fd()).unwrap();
        assert!(matches!(stderr.way, Way::Own));
        takes_what_it_can(&stderr, File::from(reader));
    }

    #[test]
    fn nor_does_a_pipe_that_cannot_be_opened_anew() {
        let (reader, writer) = pipe::pipe().unwrap();
        let stderr = Stderr { target: writer, way: moved().unwrap() };
        takes_what_it_can(&stderr, File::from(reader));
    }

    #[test]
    fn nor_does_a_socket() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stderr = Stderr::to(ours.as_fd()).unwrap();
        assert!(matches!(stderr.way, Way::Socket));
        takes_what_it_can(&stderr, File::from(OwnedFd::from(theirs)));
    }

    #[test]
    fn the_open_file_that_others_share_waits_as_before() {
        let (_reader, writer) = pipe::pipe().unwrap();
        let _stderr = Stderr::to(writer.as_fd()).unwrap();
        let flags = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}
