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

/// A connection on which an order was given. Where its monitor keeps it, it is there for another order when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// Watched for what comes alone, as a pipe is: watched for room too, whatever the monitor reads would wake this process.
    /// Always there until the drop.
    stream: Option<Receiver>,
    /// What has arrived of reports.
    bytes: Vec<u8>,
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

/// Gives an order, with descriptors of the script's, and waits until its program is told to run; or for the outcome without
/// that. The order is carried out once or, where that is the outcome, not at all.
pub async fn begin(
    orders: &Orders,
    order: &Order,
    descriptors: &[BorrowedFd<'_>],
) -> Result<Result<Running, Outcome>, OrderError> {
    while let Some((connection, turn)) = orders.kept().take() {
        // One whose monitor does not wait any longer takes nothing.
        let Ok(mut running) = Running::give((connection, turn), orders, order, descriptors).await else { continue };
        match running.first().await {
            Ok(First::Started) => return Ok(Ok(running)),
            Ok(First::Ended(outcome)) => return Ok(Err(outcome)),
            Ok(First::Declined) => break,
            Err(OrderError::Closed(error)) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
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
    let mut running = Running::give(fresh(orders).await?, orders, order, descriptors).await?;
    match running.first().await? {
        First::Started => Ok(Ok(running)),
        First::Ended(Outcome::Refused(refusal)) if order.is_kept() && refusal.code() == UNKNOWN_VERSION => {
            orders.kept().is_impossible(Instant::now());
            Box::pin(begin_anew(orders, order, descriptors)).await
        }
        First::Ended(outcome) => Ok(Err(outcome)),
        First::Declined => Err(OrderError::Closed(io::ErrorKind::ConnectionRefused.into())),
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
        orders: &Orders,
        order: &Order,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Self, OrderError> {
        let bytes = frame::encode(order, limits::ORDER)?;
        // Nothing is in the socket's buffer, so at least the first byte leaves at once, and the descriptors with it.
        let sent = fdpass::send(stream.as_fd(), &bytes, descriptors).map_err(OrderError::Unreachable)?;
        let rest = bytes.get(sent..).unwrap_or_default();
        if !rest.is_empty() {
            send_rest(&stream, rest).await.map_err(OrderError::Unreachable)?;
        }
        Ok(Self { stream: Some(stream), bytes: Vec::new(), free: false, home: (Arc::clone(orders.kept()), turn) })
    }

    async fn first(&mut self) -> Result<First, OrderError> {
        Ok(match self.report().await? {
            Report::Started { .. } => First::Started,
            Report::Ended(outcome) | Report::Free(outcome) => First::Ended(outcome),
            Report::Declined => First::Declined,
        })
    }

    /// The outcome, where it has arrived with the report before it.
    pub fn ended(&mut self) -> Result<Option<Outcome>, OrderError> {
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
            let stream = self.stream.as_ref().ok_or_else(|| OrderError::Closed(io::ErrorKind::NotConnected.into()))?;
            stream.readable().await.map_err(OrderError::Closed)?;
            let mut piece = [0; 512];
            match stream.try_read(&mut piece) {
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
