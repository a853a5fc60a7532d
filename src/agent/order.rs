//! One order's connection, from the front-end's side.
//!
//! Dropping it closes the connection, and the executor's monitor then kills the script: a caller that went away ends
//! its attached run.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

use crate::sys::{fdpass, pipe};
use crate::wire::frame::{self, FrameError, PREFIX};
use crate::wire::limits;
use crate::wire::order::{Order, Report};
use crate::wire::outcome::Outcome;

/// An order that got no outcome.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The executor cannot be reached.
    #[error("executor unreachable")]
    Unreachable(#[source] io::Error),
    /// The script's output could not be read to its end.
    #[error("the script's output cannot be read")]
    Output(#[source] io::Error),
    /// The connection broke before the outcome.
    #[error("executor closed before responding")]
    Closed(#[source] io::Error),
    /// A message that is none.
    #[error("executor sent a message that cannot be read")]
    Frame(#[from] FrameError),
}

/// A connection on which an order was given.
#[derive(Debug)]
pub struct Running {
    /// Watched for what comes alone, as a pipe is: watched for room too, whatever the monitor reads would wake this process.
    stream: Receiver,
    /// What has arrived of reports.
    bytes: Vec<u8>,
    /// The script's program was told to run.
    begun: bool,
}

impl Running {
    /// Gives an order on a fresh connection. The descriptors go with the first byte.
    pub async fn give(connection: OwnedFd, order: &Order, descriptors: &[BorrowedFd<'_>]) -> Result<Self, OrderError> {
        let bytes = frame::encode(order, limits::ORDER)?;
        pipe::set_nonblocking(connection.as_fd(), true).map_err(OrderError::Unreachable)?;
        // A fresh socket's buffer is empty, so at least the first byte leaves at once, and the descriptors with it.
        let sent = fdpass::send(connection.as_fd(), &bytes, descriptors).map_err(OrderError::Unreachable)?;
        let rest = bytes.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            send_rest(&connection, rest).await.map_err(OrderError::Unreachable)?;
        }
        let stream = Receiver::from_owned_fd_unchecked(connection).map_err(OrderError::Unreachable)?;
        Ok(Self { stream, bytes: Vec::new(), begun: false })
    }

    /// Waits until the script's program is told to run, if it was not; or for an outcome without that.
    pub async fn begun(&mut self) -> Result<Option<Outcome>, OrderError> {
        if self.begun {
            return Ok(None);
        }
        match self.report().await? {
            Report::Started { .. } => {
                self.begun = true;
                Ok(None)
            }
            Report::Ended(outcome) => Ok(Some(outcome)),
        }
    }

    /// The outcome, where it has arrived with the report before it.
    pub fn ended(&mut self) -> Result<Option<Outcome>, OrderError> {
        match self.received()? {
            Some(Report::Ended(outcome)) => Ok(Some(outcome)),
            Some(Report::Started { .. }) | None => Ok(None),
        }
    }

    /// Waits for the one outcome.
    pub async fn outcome(&mut self) -> Result<Outcome, OrderError> {
        loop {
            match self.report().await? {
                Report::Started { .. } => {}
                Report::Ended(outcome) => return Ok(outcome),
            }
        }
    }

    async fn report(&mut self) -> Result<Report, OrderError> {
        loop {
            if let Some(report) = self.received()? {
                return Ok(report);
            }
            self.stream.readable().await.map_err(OrderError::Closed)?;
            let mut piece = [0; 512];
            match self.stream.try_read(&mut piece) {
                Ok(0) => return Err(OrderError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(OrderError::Closed(error)),
            }
        }
    }

    /// Takes a report off what has arrived, if it is there whole.
    fn received(&mut self) -> Result<Option<Report>, OrderError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let size = PREFIX + frame::announced(*prefix, limits::REPORT)?;
        let Some(body) = self.bytes.get(PREFIX..size) else { return Ok(None) };
        let report = frame::decode(body)?;
        self.bytes.drain(..size);
        Ok(Some(report))
    }
}

/// Sends what the connection had no room for. An executor that refuses (busy, too large) answers and closes before it has
/// read everything: the answer is then waiting, and says more than the broken pipe.
async fn send_rest(connection: &OwnedFd, rest: &[u8]) -> io::Result<()> {
    let mut sender = Sender::from_owned_fd_unchecked(connection.try_clone()?)?;
    drop(sender.write_all(rest).await);
    Ok(())
}
