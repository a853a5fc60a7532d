//! One order's connection, from the front-end's side.
//!
//! Dropping it closes the connection, and the executor's monitor then kills the script: a caller that went away ends
//! its attached run.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

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
    stream: UnixStream,
}

impl Running {
    /// Gives an order on a fresh connection. The descriptors go with the first byte.
    pub async fn give(connection: OwnedFd, order: &Order, descriptors: &[BorrowedFd<'_>]) -> Result<Self, OrderError> {
        let bytes = frame::encode(order, limits::ORDER)?;
        pipe::set_nonblocking(connection.as_fd(), true).map_err(OrderError::Unreachable)?;
        // A fresh socket's buffer is empty, so at least the first byte leaves at once, and the descriptors with it.
        let sent = fdpass::send(connection.as_fd(), &bytes, descriptors).map_err(OrderError::Unreachable)?;
        let mut stream = UnixStream::from_std(StdStream::from(connection)).map_err(OrderError::Unreachable)?;
        // An executor that refuses (busy, too large) answers and closes before it has read everything: the answer is
        // then waiting, and says more than the broken pipe.
        let _ = stream.write_all(bytes.get(sent..).unwrap_or_default()).await;
        Ok(Self { stream })
    }

    /// Waits until the script's program runs, which has no outcome yet; or for an outcome without that.
    pub async fn begun(&mut self) -> Result<Option<Outcome>, OrderError> {
        match self.report().await? {
            Report::Started { .. } => Ok(None),
            Report::Ended(outcome) => Ok(Some(outcome)),
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
        let mut prefix = [0; PREFIX];
        self.stream.read_exact(&mut prefix).await.map_err(OrderError::Closed)?;
        let mut body = vec![0; frame::announced(prefix, limits::REPORT)?];
        self.stream.read_exact(&mut body).await.map_err(OrderError::Closed)?;
        Ok(frame::decode(&body)?)
    }
}
