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

/// An order that got no outcome. Only [`OrderError::Unreachable`] says that nothing ran.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The executor cannot be reached: the order was not given.
    #[error("executor unreachable")]
    Unreachable(#[source] io::Error),
    /// The script's output could not be read to its end.
    #[error("the script's output cannot be read after the script started; outcome unknown")]
    Output(#[source] io::Error),
    /// The connection broke before anything was heard of the order: the script may have started or not.
    #[error("executor closed before responding; outcome unknown")]
    Closed(#[source] io::Error),
    /// The connection broke, or something else than a report came, when the script's program was known to run.
    #[error("executor lost after the script started; outcome unknown")]
    Lost(#[source] io::Error),
    /// A message that is none, before anything was heard of the order.
    #[error("executor sent a message that cannot be read; outcome unknown")]
    Frame(#[source] FrameError),
}

impl OrderError {
    /// The same, where the script is known to have printed: then it has started, though nobody came to say so.
    #[must_use]
    pub fn although(self, printed: bool) -> Self {
        match self {
            Self::Closed(error) if printed => Self::Lost(error),
            Self::Frame(error) if printed => Self::Lost(io::Error::other(error)),
            other => other,
        }
    }

    /// Whether the script may have run, to whichever end. Else nothing ran.
    #[must_use]
    pub const fn is_outcome_unknown(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
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
        let unsendable = |error| OrderError::Unreachable(io::Error::other(error));
        let bytes = frame::encode(order, limits::ORDER).map_err(unsendable)?;
        pipe::set_nonblocking(connection.as_fd(), true).map_err(OrderError::Unreachable)?;
        // A fresh socket's buffer is empty, so at least the first byte leaves at once, and the descriptors with it.
        let sent = fdpass::send(connection.as_fd(), &bytes, descriptors).map_err(OrderError::Unreachable)?;
        let rest = bytes.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            send_rest(&connection, rest).await.map_err(OrderError::Closed)?;
        }
        // From here on the order is somebody's.
        let stream = Receiver::from_owned_fd_unchecked(connection).map_err(OrderError::Closed)?;
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
            self.stream.readable().await.map_err(|error| self.broken(error))?;
            let mut piece = [0; 512];
            match self.stream.try_read(&mut piece) {
                Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => self.bytes.extend_from_slice(piece.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    fn broken(&self, error: io::Error) -> OrderError {
        if self.begun { OrderError::Lost(error) } else { OrderError::Closed(error) }
    }

    fn unreadable(&self, error: FrameError) -> OrderError {
        if self.begun { OrderError::Lost(io::Error::other(error)) } else { OrderError::Frame(error) }
    }

    /// Takes a report off what has arrived, if it is there whole.
    fn received(&mut self) -> Result<Option<Report>, OrderError> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let announced = frame::announced(*prefix, limits::REPORT).map_err(|error| self.unreadable(error))?;
        let size = PREFIX + announced;
        let Some(body) = self.bytes.get(PREFIX..size) else { return Ok(None) };
        let report = frame::decode(body).map_err(|error| self.unreadable(error))?;
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::*;
    use crate::sys::fdpass::Kind;
    use crate::wire::causes;
    use crate::wire::name::{RequestId, ScriptName};
    use crate::wire::order::Mode;

    /// What is made of an executor that says this and is gone.
    async fn heard(said: &[u8]) -> OrderError {
        let (ours, theirs) = fdpass::pair(Kind::Stream).unwrap();
        let request = RequestId::from_random([1; 8]);
        let order = Order::new(ScriptName::parse("x").unwrap(), Vec::new(), request, Mode::Attached).unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut running = Running::give(ours, &order, &[null.as_fd()]).await.unwrap();
        File::from(theirs).write_all(said).unwrap();
        match running.begun().await {
            Ok(None) => running.outcome().await.unwrap_err(),
            other => other.unwrap_err(),
        }
    }

    #[tokio::test]
    async fn an_executor_lost_after_the_start_is_never_one_that_started_nothing() {
        let started = frame::encode(&Report::Started { pid: 7 }, limits::REPORT).unwrap();
        let nonsense = [&started[..], &[0, 0, 0, 1, b'x']].concat();
        for said in [started.clone(), nonsense] {
            let error = heard(&said).await;
            assert!(error.is_outcome_unknown(), "{error:?}");
            let text = causes::on_one_line(&error);
            assert!(text.starts_with("executor lost after the script started; outcome unknown: "), "{text}");
        }
        for said in [&[][..], &started[..3], &[0, 0, 0, 1, b'x']] {
            let error = heard(said).await;
            assert!(error.is_outcome_unknown() && !matches!(error, OrderError::Lost(_)), "{error:?}");
            assert!(error.to_string().ends_with("; outcome unknown"), "{error}");
        }
        let silent = || OrderError::Closed(io::ErrorKind::UnexpectedEof.into());
        assert!(matches!(silent().although(true), OrderError::Lost(_)), "what prints has started");
        assert!(matches!(silent().although(false), OrderError::Closed(_)));
        assert!(!OrderError::Unreachable(io::ErrorKind::NotFound.into()).is_outcome_unknown());
    }
}
