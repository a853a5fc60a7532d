//! One run under way: pipes to the script, its context on stdin, its output to a [`Sink`], its one outcome.
//!
//! A buffered reply and a streamed one differ in their sinks alone. What lies in a pipe when the script has ended is
//! taken and nothing is waited for: a background process that holds the pipe open delays no reply.
//!
//! Most scripts have ended a moment after their start, and are told to have begun and ended at once: nobody watches the
//! pipes of those, since being told of each of them costs more than what they bring.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::sync::watch;

use super::order::{self, OrderError, Running};
use super::orders::Orders;
use super::pump::{self, Sink};
use crate::sys::pipe;
use crate::wire::order::Order;
use crate::wire::outcome::Outcome;
use crate::wire::stream::Channel;

/// A run under way. Dropping it ends the script.
#[derive(Debug)]
pub struct Run {
    running: Running,
    stdin: Option<Rest>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

/// What a run brought, besides its output.
#[derive(Debug)]
pub struct Finished {
    /// The one outcome.
    pub outcome: Outcome,
    /// Bytes of the context that the script did not read in time.
    pub unread: Option<usize>,
}

impl Run {
    /// Gives the order, with three pipes; the context is in the first of them already, as far as there is room. Waits until
    /// the script's program runs; or says how it ended without.
    pub async fn start(orders: &Orders, order: &Order, context: &[u8]) -> Result<Result<Self, Outcome>, OrderError> {
        let ((stdin, stdout, stderr), theirs) = pipes(context).map_err(OrderError::Unreachable)?;
        let descriptors = theirs.each_ref().map(|end| end.as_fd());
        let begun = order::begin(orders, order, &descriptors).await?;
        // Our copies of the script's ends go here, or the pipes would never end.
        drop(theirs);
        Ok(begun.map(|running| Self { running, stdin, stdout, stderr }))
    }

    /// Writes what is left of the context within `limit`, passes the output on, and waits for the outcome. `told` hears
    /// when that is there; some of the output may still have to be taken then. Also where the outcome stays unknown, what
    /// the script has printed by then is passed on.
    pub async fn finish<S, T>(mut self, limit: Duration, sink: &S, told: T) -> Result<Finished, OrderError>
    where
        S: Sink,
        T: FnOnce() + Send,
    {
        if let Some(outcome) = self.running.ended().transpose() {
            told();
            let stdout = pump::drain(&self.stdout, Channel::Stdout, sink).await;
            let stderr = pump::drain(&self.stderr, Channel::Stderr, sink).await;
            let finished = outcome.map(|outcome| Finished { outcome, unread: None });
            return finished.map_err(|error| error.although(stdout || stderr));
        }
        // The end is told to those who read, instead of dropping them: one of them may hold a piece that its sink has
        // not taken yet.
        let (ended, end) = watch::channel(false);
        let outcome = async {
            let outcome = self.running.outcome().await;
            told();
            ended.send_replace(true);
            outcome
        };
        let (outcome, unread, stdout, stderr) = tokio::join!(
            outcome,
            feed(self.stdin, limit, end.clone()),
            pump::follow(self.stdout, Channel::Stdout, sink, end.clone()),
            pump::follow(self.stderr, Channel::Stderr, sink, end),
        );
        let stdout = leftover(stdout, Channel::Stdout, sink).await;
        let stderr = leftover(stderr, Channel::Stderr, sink).await;
        let outcome = outcome?;
        stdout.and(stderr).map_err(OrderError::Output)?;
        Ok(Finished { outcome, unread })
    }
}

/// Passes on what is left in a pipe that was followed to the script's end.
async fn leftover<S: Sink>(followed: io::Result<OwnedFd>, channel: Channel, sink: &S) -> io::Result<()> {
    pump::drain(&followed?, channel, sink).await;
    Ok(())
}

type Ours = (Option<Rest>, OwnedFd, OwnedFd);

/// The script's ends stay blocking, as every program expects; ours do not.
fn pipes(context: &[u8]) -> io::Result<(Ours, [OwnedFd; 3])> {
    let (stdin_read, stdin_write) = pipe::pipe()?;
    let (stdout_read, stdout_write) = pipe::pipe()?;
    let (stderr_read, stderr_write) = pipe::pipe()?;
    pipe::set_nonblocking(&stdout_read, true)?;
    pipe::set_nonblocking(&stderr_read, true)?;
    let ours = (put(stdin_write, context)?, stdout_read, stderr_read);
    Ok((ours, [stdin_read, stdout_write, stderr_write]))
}

/// What of a context the pipe had no room for, and where it goes.
#[derive(Debug)]
struct Rest {
    pipe: Sender,
    bytes: Vec<u8>,
}

/// Puts the context into the pipe before there is a script to read it. An ordinary one has room there, and then nobody
/// has to watch the pipe.
fn put(stdin: OwnedFd, context: &[u8]) -> io::Result<Option<Rest>> {
    pipe::set_nonblocking(&stdin, true)?;
    let mut left = context;
    while !left.is_empty() {
        match pipe::write_some(&stdin, left) {
            Ok(count) => left = left.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Some(Rest { pipe: Sender::from_owned_fd(stdin)?, bytes: left.to_vec() }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Writes the rest of the context. A script may ignore or close its stdin; one that reads too slowly loses what is left
/// then, whose size is returned.
async fn feed(rest: Option<Rest>, limit: Duration, mut end: pump::Receive) -> Option<usize> {
    let Rest { mut pipe, bytes } = rest?;
    let mut left = bytes.as_slice();
    let writing = async {
        while !left.is_empty() {
            match pipe.write(left).await {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(_) => left = &[],
            }
        }
    };
    let in_time = tokio::select! {
        written = tokio::time::timeout(limit, writing) => written.is_ok(),
        _ = end.wait_for(|ended| *ended) => true,
    };
    (!in_time).then_some(left.len())
}
