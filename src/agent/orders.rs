//! The way to the executor: one control socket, a fresh connection for each order, a reload that is answered.
//!
//! The executor is this same program as a private child. If it dies, the next order starts another; orders under way
//! are not touched, since each has its own monitor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::sys::fdpass::{self, Kind};
use crate::sys::{pipe, process};
use crate::wire::control::{Control, LIMIT, Reloaded};

/// How long the executor may take to read its configuration.
const PATIENCE: Duration = Duration::from_secs(10);

/// The executor and the socket to it.
#[derive(Debug)]
pub struct Orders {
    arguments: Vec<OsString>,
    line: Mutex<Option<Line>>,
}

/// An executor that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// It did not start, or went away.
    #[error("the executor cannot be started")]
    Start(#[source] io::Error),
    /// It reads the same files and found them broken.
    #[error("the executor cannot use the configuration: {0}")]
    Configuration(String),
    /// It answered nothing in time.
    #[error("the executor did not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
}

impl ExecutorError {
    fn into_io(self) -> io::Error {
        match self {
            Self::Start(error) => error,
            other => io::Error::other(other),
        }
    }
}

#[derive(Debug)]
struct Line {
    /// A socket of whole messages; only its readiness is used, sending and receiving carry descriptors.
    control: UnixDatagram,
    /// Until it is waited for.
    child: Option<Child>,
}

impl Orders {
    /// Orders to an executor that reads these two files and gives its scripts this limit on descriptors. Nothing is
    /// started yet.
    #[must_use]
    pub fn new(config: &Path, allowlist: &Path, root: &Path, descriptors: u64) -> Self {
        let limit = OsString::from(descriptors.to_string());
        let arguments = ["serve-private".as_ref(), config.as_os_str(), allowlist.as_os_str(), root.as_os_str(), &limit];
        Self { arguments: arguments.map(OsStr::to_owned).to_vec(), line: Mutex::new(None) }
    }

    /// Starts the executor and waits until it has read its configuration.
    pub async fn start(&self) -> Result<(), ExecutorError> {
        *self.line.lock().await = Some(self.connect().await?);
        Ok(())
    }

    /// A fresh order connection. Starts the executor anew if it has died.
    pub async fn open(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = fdpass::pair(Kind::Stream)?;
        let mut line = self.line.lock().await;
        if let Some(open) = line.as_ref()
            && open.say(Control::Order, &[theirs.as_fd()]).await.is_ok()
        {
            return Ok(ours);
        }
        *line = None;
        let fresh = self.connect().await.map_err(ExecutorError::into_io)?;
        let said = fresh.say(Control::Order, &[theirs.as_fd()]).await;
        *line = Some(fresh);
        said.map(|()| ours)
    }

    /// Has the executor read its configuration again.
    pub async fn reload(&self) -> Result<(), ExecutorError> {
        let mut line = self.line.lock().await;
        if let Some(open) = line.as_ref()
            && open.say(Control::Reload, &[]).await.is_ok()
        {
            let answer = open.answer().await;
            // An answer that comes late would be taken for that to the next question.
            if !matches!(answer, Ok(()) | Err(ExecutorError::Configuration(_))) {
                *line = None;
            }
            return answer;
        }
        *line = None;
        *line = Some(self.connect().await?);
        Ok(())
    }

    async fn connect(&self) -> Result<Line, ExecutorError> {
        let (ours, theirs) = fdpass::pair(Kind::Messages).map_err(ExecutorError::Start)?;
        pipe::set_nonblocking(ours.as_fd(), true).map_err(ExecutorError::Start)?;
        let arguments: Vec<&OsStr> = self.arguments.iter().map(OsString::as_os_str).collect();
        let child = process::spawn_private(&arguments, theirs).map_err(ExecutorError::Start)?;
        let control = UnixDatagram::from_std(ours.into()).map_err(ExecutorError::Start)?;
        let line = Line { control, child: Some(child) };
        line.answer().await?;
        Ok(line)
    }
}

impl Line {
    async fn say(&self, message: Control, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(&message)?;
        let send = || fdpass::send(self.control.as_fd(), &text, descriptors);
        self.control.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    async fn answer(&self) -> Result<(), ExecutorError> {
        let text = timeout(PATIENCE, self.receive()).await.map_err(|_| ExecutorError::Silent)?;
        match serde_json::from_slice(&text.map_err(ExecutorError::Start)?) {
            Ok(Reloaded::Done) => Ok(()),
            Ok(Reloaded::Failed { text }) => Err(ExecutorError::Configuration(text)),
            Err(error) => Err(ExecutorError::Start(error.into())),
        }
    }

    async fn receive(&self) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; LIMIT];
        let receive = || fdpass::receive(self.control.as_fd(), &mut buffer, 0);
        let message = self.control.async_io(Interest::READABLE, receive).await?;
        buffer.truncate(message.size);
        Ok(buffer)
    }
}

impl Drop for Line {
    /// The child ends when its socket closes, which is a moment from now. Somebody has to wait for it, or it stays a
    /// zombie as long as this process lives.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // Without a thread the zombie stays; there is nobody to tell.
            let _ = std::thread::Builder::new().name("reaper".to_owned()).spawn(move || child.wait());
        }
    }
}
