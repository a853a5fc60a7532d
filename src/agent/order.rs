//! One order's connection, from the front-end's side: one that a monitor has kept, else a fresh one.
//!
//! Dropping it closes the connection, and the executor's monitor then kills the script: a caller that went away ends
//! its attached run.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::orders::Orders;
use super::orders::kept::{Kept, Turn};
use crate::sys::{fdpass, pipe};
use crate::wire::frame::{self, FrameError, PREFIX};
use crate::wire::limits;
use crate::wire::order::{Order, Report, UNKNOWN_VERSION};
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

/// A connection on which an order was given. Where its monitor keeps it, it is there for another order when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Watched for what comes alone, as a pipe is: watched for room too, whatever the monitor reads would wake this process.
    /// Always there until the drop.
    stream: Option<Receiver>,
    /// What has arrived of reports.
    bytes: Vec<u8>,
    /// The script's program was told to run.
    begun: bool,
    /// What came in place of that: the script may run all the same.
    unheard: Option<OrderError>,
    /// Its monitor is free again.
    free: bool,
    home: (Arc<Kept>, Turn),
}

/// The first that is heard of an order.
enum First {
    /// The script's program was told to run.
    Started,
    Ended(Outcome),
    /// Nothing of it has happened.
    Declined,
}

/// Gives an order, with descriptors of the script's, and waits until its program is told to run, or nothing can be told any
/// more; or for the outcome without that. The order is carried out once or, where that is the outcome, not at all.
pub async fn begin(
    orders: &Orders,
    order: &Order,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Result<Running, Outcome>, OrderError> {
    while let Some((connection, turn)) = orders.kept().take() {
        // One whose monitor does not wait any longer takes nothing.
        let Ok(mut running) = Running::give((connection, turn), orders.kept(), order, descriptors).await else {
            continue;
        };
        match running.first().await {
            Ok(First::Started) => return Ok(Ok(running)),
            Ok(First::Ended(outcome)) => return Ok(Err(outcome)),
            Ok(First::Declined) => break,
            Err(OrderError::Closed(error)) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return running.although(error).map(Ok),
        }
    }
    begin_anew(orders, order, descriptors).await
}

/// The same, on a fresh connection.
async fn begin_anew(
    orders: &Orders,
    order: &Order,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Result<Running, Outcome>, OrderError> {
    let plain = (order.is_kept() && !orders.kept().is_possible(Instant::now())).then(|| order.clone().plain());
    let order = plain.as_ref().unwrap_or(order);
    let mut running = Running::give(fresh(orders).await?, orders.kept(), order, descriptors).await?;
    let first = match running.first().await {
        Ok(first) => first,
        Err(error) => return running.although(error).map(Ok),
    };
    match first {
        First::Started => Ok(Ok(running)),
        First::Ended(Outcome::Refused(refusal)) if order.is_kept() && refusal.code() == UNKNOWN_VERSION => {
            orders.kept().is_impossible(Instant::now());
            Box::pin(begin_anew(orders, order, descriptors)).await
        }
        First::Ended(outcome) => Ok(Err(outcome)),
        First::Declined => Err(OrderError::Unreachable(io::ErrorKind::ConnectionRefused.into())),
    }
}

async fn fresh(orders: &Orders) -> Result<(Receiver, Turn), OrderError> {
    let turn = orders.kept().turn();
    let connection = orders.open().await.map_err(OrderError::Unreachable)?;
    pipe::set_nonblocking(connection.as_fd(), true).map_err(OrderError::Unreachable)?;
    let stream = Receiver::from_owned_fd_unchecked(connection).map_err(OrderError::Unreachable)?;
    Ok((stream, turn))
}

impl Running {
    /// Gives an order on a connection where nothing is under way. The descriptors go with the first byte.
    async fn give(
        (stream, turn): (Receiver, Turn),
        kept: &Arc<Kept>,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, OrderError> {
        let unsendable = |error| OrderError::Unreachable(io::Error::other(error));
        let bytes = frame::encode(order, limits::ORDER).map_err(unsendable)?;
        // Nothing is in the socket's buffer, so at least the first byte leaves at once, and the descriptors with it.
        let sent = match fdpass::send(stream.as_fd(), &bytes, descriptors) {
            Ok(sent) => sent,
            // Nobody has the order. Whoever has no place for it may have said so already, and closed.
            Err(error) => {
                let mut told = vec![0; limits::REPORT];
                let size = fdpass::receive_now(stream.as_fd(), &mut told).unwrap_or_default();
                told.truncate(size);
                let bytes = told;
                let home = (Arc::clone(kept), turn);
                let said = Self { stream: Some(stream), bytes, begun: false, unheard: None, free: false, home };
                return if size > 0 { Ok(said) } else { Err(OrderError::Unreachable(error)) };
            }
        };
        let rest = bytes.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            send_rest(&stream, rest).await.map_err(OrderError::Closed)?;
        }
        // From here on the order is somebody's.
        let home = (Arc::clone(kept), turn);
        Ok(Self { stream: Some(stream), bytes: Vec::new(), begun: false, unheard: None, free: false, home })
    }

    async fn first(&mut self) -> Result<First, OrderError> {
        Ok(match self.report().await? {
            Report::Started { .. } => First::Started,
            Report::Ended(outcome) | Report::Free(outcome) => First::Ended(outcome),
            Report::Declined => First::Declined,
        })
    }

    /// One of which nothing was heard for this reason.
    fn although(mut self, error: OrderError) -> Result<Self, OrderError> {
        if !error.is_outcome_unknown() {
            return Err(error);
        }
        self.unheard = Some(error);
        Ok(self)
    }

    /// One whose script was told to run.
    ///
    /// # Errors
    /// It was not, for this reason, and may run or not.
    pub fn heard(mut self) -> Result<Self, OrderError> {
        match self.unheard.take() {
            None => Ok(self),
            Some(error) => Err(error),
        }
    }

    /// The outcome, where it has arrived with the report before it; or why none will come.
    pub fn ended(&mut self) -> Result<Option<Outcome>, OrderError> {
        if let Some(error) = self.unheard.take() {
            return Err(error);
        }
        self.received()?.map_or(Ok(None), outcome_of)
    }

    /// Waits for the one outcome.
    pub async fn outcome(&mut self) -> Result<Outcome, OrderError> {
        loop {
            if let Some(outcome) = outcome_of(self.report().await?)? {
                return Ok(outcome);
            }
        }
    }

    async fn report(&mut self) -> Result<Report, OrderError> {
        loop {
            if let Some(report) = self.received()? {
                return Ok(report);
            }
            let stream = self.stream.as_ref().ok_or_else(|| self.broken(io::ErrorKind::NotConnected.into()))?;
            stream.readable().await.map_err(|error| self.broken(error))?;
            let mut piece = [0; 512];
            match stream.try_read(&mut piece) {
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
        self.begun |= matches!(report, Report::Started { .. });
        self.free = matches!(report, Report::Free(_));
        Ok(Some(report))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (kept, turn) = &self.home;
        if let Some(stream) = self.stream.take().filter(|_| self.free && self.bytes.is_empty()) {
            kept.give_back(stream, *turn);
        }
    }
}

/// What a report says of the end behind the start.
fn outcome_of(report: Report) -> Result<Option<Outcome>, OrderError> {
    match report {
        Report::Started { .. } => Ok(None),
        Report::Ended(outcome) | Report::Free(outcome) => Ok(Some(outcome)),
        Report::Declined => Err(OrderError::Closed(io::ErrorKind::InvalidData.into())),
    }
}

/// Sends what the connection had no room for. An executor that refuses (busy, too large) answers and closes before it has
/// read everything: the answer is then waiting, and says more than the broken pipe.
async fn send_rest(connection: &Receiver, rest: &[u8]) -> io::Result<()> {
    let mut sender = Sender::from_owned_fd_unchecked(connection.as_fd().try_clone_to_owned()?)?;
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
    use crate::wire::refusal::Refusal;

    /// What is made of an executor that says this and is gone.
    async fn heard(said: &[u8]) -> OrderError {
        let (ours, theirs) = fdpass::pair(Kind::Stream).unwrap();
        let request = RequestId::from_random([1; 8]);
        let order = Order::new(ScriptName::parse("x").unwrap(), Vec::new(), request, Mode::Attached).unwrap();
        let null = File::open("/dev/null").unwrap();
        pipe::set_nonblocking(&ours, true).unwrap();
        let (kept, ours) = (Arc::<Kept>::default(), Receiver::from_owned_fd_unchecked(ours).unwrap());
        let mut running = Running::give((ours, kept.turn()), &kept, &order, &[null.as_fd()]).await.unwrap();
        File::from(theirs).write_all(said).unwrap();
        match running.first().await {
            Ok(First::Started) => running.outcome().await.unwrap_err(),
            Ok(_) => panic!("an outcome was heard"),
            Err(error) => error,
        }
    }

    #[tokio::test]
    async fn an_executor_that_refuses_before_it_has_the_order_is_heard() {
        let order =
            Order::new(ScriptName::parse("x").unwrap(), Vec::new(), RequestId::from_random([1; 8]), Mode::Attached);
        let (order, null, kept) = (order.unwrap(), File::open("/dev/null").unwrap(), Arc::<Kept>::default());
        let refusal = Refusal::new("busy", "try again later");
        let answer = frame::encode(&Report::Ended(Outcome::Refused(refusal.clone())), limits::REPORT).unwrap();
        for said in [&answer[..], &[]] {
            let (ours, theirs) = fdpass::pair(Kind::Stream).unwrap();
            pipe::set_nonblocking(&ours, true).unwrap();
            File::from(theirs).write_all(said).unwrap();
            let ours = Receiver::from_owned_fd_unchecked(ours).unwrap();
            let given = Running::give((ours, kept.turn()), &kept, &order, &[null.as_fd()]).await;
            if said.is_empty() {
                assert!(matches!(given, Err(OrderError::Unreachable(_))));
            } else {
                let First::Ended(outcome) = given.unwrap().first().await.unwrap() else { panic!("not ended") };
                assert_eq!(outcome, Outcome::Refused(refusal.clone()));
            }
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
