//! The socket pair between the front-end and an executor that it has started.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

use super::{ExecutorError, PATIENCE, judge};
use crate::sys::fdpass::{self, Kind};
use crate::sys::process::Pid;
use crate::sys::{pipe, poll, process};
use crate::wire::control::{Control, LIMIT};

/// How long an executor may take to end whose socket is closed.
const ENDING: Duration = Duration::from_secs(1);

/// An executor's process that was just started, and our end of the socket to it.
#[derive(Debug)]
pub(super) struct Fresh {
    control: OwnedFd,
    child: Option<Child>,
}

impl Fresh {
    /// Starts it, which needs no runtime.
    pub(super) fn start(arguments: &[OsString]) -> io::Result<Self> {
        let (control, theirs) = fdpass::pair(Kind::Messages)?;
        pipe::set_nonblocking(control.as_fd(), true)?;
        let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        let child = process::spawn_private(&arguments, theirs)?;
        Ok(Self { control, child: Some(child) })
    }

    /// One that this process has started before it ran this program. It has its configuration.
    pub(super) fn known(control: OwnedFd) -> io::Result<Self> {
        pipe::set_nonblocking(control.as_fd(), true)?;
        fdpass::send(control.as_fd(), &serde_json::to_vec(&Control::Hello)?, &[])?;
        Ok(Self { control, child: None })
    }

    /// Waits until it has read its configuration.
    pub(super) async fn ready(self) -> Result<Line, ExecutorError> {
        let control = Receiver::from_owned_fd_unchecked(self.control).map_err(ExecutorError::Start)?;
        let line = Line { control: Arc::new(control), child: self.child };
        line.answer().await?;
        Ok(line)
    }
}

/// A running executor of ours.
#[derive(Debug)]
pub(super) struct Line {
    /// A socket of whole messages. It is watched for answers alone, as a pipe is: watched for room too, every order that the
    /// executor takes would wake this process.
    control: Arc<Receiver>,
    /// Until it is waited for.
    child: Option<Child>,
}

impl Line {
    /// Whether its process lives; of one that was started by another program of this process, its socket tells.
    pub(super) fn is_alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => poll::closed(self.control.as_fd(), Duration::ZERO).is_ok_and(|closed| !closed),
        }
    }

    /// Whether nobody has the other end of the socket any more.
    pub(super) fn is_over(&self) -> bool {
        poll::closed(self.control.as_fd(), Duration::ZERO).unwrap_or(true)
    }

    /// Its process, if this program has started it.
    pub(super) fn process(&self) -> Option<Pid> {
        let id = self.child.as_ref().map(Child::id)?;
        i32::try_from(id).ok().map(Pid::from_raw)
    }

    /// How its process ends, which it does now that nothing is to be had of it any more; unless it does not.
    pub(super) async fn status(mut self) -> Option<ExitStatus> {
        self.hang_up();
        let mut child = self.child.take()?;
        let ended = tokio::task::spawn_blocking(move || child.wait());
        timeout(ENDING, ended).await.ok()?.ok()?.ok()
    }

    /// Closes the socket for everyone who has this end of it.
    fn hang_up(&self) {
        // One that is closed already needs nothing.
        drop(fdpass::close_door(self.control.as_fd()));
    }

    /// What hears of the end of everybody who has the other end of the socket.
    pub(super) fn end(&self) -> End {
        End(Arc::clone(&self.control))
    }

    /// Hands over the executor's end of an order's connection.
    pub(super) async fn order(&self, connection: &OwnedFd) -> io::Result<()> {
        self.say(Control::Order, &[connection.as_fd()]).await
    }

    /// Asks for a reload; answered by [`Line::answer`].
    pub(super) async fn reload(&self) -> io::Result<()> {
        self.forget();
        self.say(Control::Reload, &[]).await
    }

    /// Forgets an answer that nobody has waited for, or it would be taken for the next one's.
    fn forget(&self) {
        while self.control.try_read(&mut [0]).is_ok_and(|size| size > 0) {}
    }

    /// Has the executor become the file that is at its path now; answered by [`Line::answer`]. Returns another descriptor
    /// of the socket.
    pub(super) async fn upgrade(&self) -> io::Result<OwnedFd> {
        self.forget();
        self.say(Control::Upgrade, &[]).await?;
        self.control.as_fd().try_clone_to_owned()
    }

    async fn say(&self, message: Control, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(&message)?;
        let send = || fdpass::send(self.control.as_fd(), &text, descriptors);
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.map(drop),
        }
        // The executor is behind.
        let full = UnixDatagram::from_std(self.control.as_fd().try_clone_to_owned()?.into())?;
        full.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    pub(super) async fn answer(&self) -> Result<(), ExecutorError> {
        let text = timeout(PATIENCE, self.receive()).await.map_err(|_| ExecutorError::Silent)?;
        judge(&text.map_err(ExecutorError::Start)?)
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LIMIT];
        loop {
            self.control.readable().await?;
            match self.control.try_read(&mut buffer) {
                Ok(size) => {
                    buffer.truncate(size);
                    return Ok(buffer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Hears of the executor's end, and of its keeper's.
#[derive(Debug)]
pub(super) struct End(Arc<Receiver>);

impl End {
    /// Waits for it. An answer does not end the wait, which is for what is told whatever is asked for (`EPOLLHUP`,
    /// `epoll_ctl(2)`).
    pub(super) async fn comes(&self) {
        if self.0.ready(Interest::PRIORITY).await.is_err() {
            // The runtime ends, and with it everybody who waits.
            std::future::pending::<()>().await;
        }
    }
}

impl Line {
    /// Ends the executor, and waits for it.
    pub(super) async fn close(mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.hang_up();
        let ended = tokio::task::spawn_blocking(move || child.wait());
        // One that does not end is a zombie in the end, and no more.
        drop(timeout(PATIENCE, ended).await);
    }
}

impl Drop for Line {
    /// The child ends when its socket closes, which is a moment from now. Somebody has to wait for it, or it stays a
    /// zombie as long as this process lives.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        self.hang_up();
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // Without a thread the zombie stays; there is nobody to tell.
            let _ = std::thread::Builder::new().name("reaper".to_owned()).spawn(move || child.wait());
        }
    }
}
