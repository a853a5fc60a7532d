//! One run under way: pipes to the script, its context on stdin, its output to a [`Sink`], its one outcome.
//!
//! A buffered reply and a streamed one differ in their sinks alone. What lies in a pipe when the script has ended is
//! taken and nothing is waited for: a background process that holds the pipe open delays no reply.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::watch;

use super::order::{OrderError, Running};
use super::orders::Orders;
use crate::sys::pipe;
use crate::wire::order::Order;
use crate::wire::outcome::Outcome;
use crate::wire::stream::Channel;

/// Bytes taken from a pipe at a time.
const CHUNK: usize = 64 * 1024;
/// Most chunks taken after the script's end. A pipe holds at most 1 MiB (pipe(7), `pipe-max-size`); more can only come
/// from a process that still prints.
const LEFTOVER_CHUNKS: usize = 32;

/// Where output goes. A sink that takes its time holds the script back, through its pipe.
pub trait Sink: Sync {
    /// Takes a piece of one stream, in the stream's order.
    fn take(&self, channel: Channel, bytes: &[u8]) -> impl Future<Output = ()> + Send;
}

/// A run under way. Dropping it ends the script.
#[derive(Debug)]
pub struct Run {
    running: Running,
    stdin: Sender,
    stdout: Receiver,
    stderr: Receiver,
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
    /// Gives the order, with three pipes.
    pub async fn start(orders: &Orders, order: &Order) -> Result<Self, OrderError> {
        let ((stdin, stdout, stderr), theirs) = pipes().map_err(OrderError::Unreachable)?;
        let connection = orders.open().await.map_err(OrderError::Unreachable)?;
        let descriptors = theirs.each_ref().map(|end| end.as_fd());
        let running = Running::give(connection, order, &descriptors).await?;
        // Our copies of the script's ends go here, or the pipes would never end.
        drop(theirs);
        Ok(Self { running, stdin, stdout, stderr })
    }

    /// Waits until the script's program runs; or says how it ended without.
    pub async fn begun(&mut self) -> Result<Option<Outcome>, OrderError> {
        self.running.begun().await
    }

    /// Writes the context, passes the output on, and waits for the outcome.
    pub async fn finish<S: Sink>(mut self, context: &[u8], limit: Duration, sink: &S) -> Result<Finished, OrderError> {
        // The end is told to those who read, instead of dropping them: one of them may hold a piece that its sink has
        // not taken yet.
        let (ended, end) = watch::channel(false);
        let outcome = async {
            let outcome = self.running.outcome().await;
            ended.send_replace(true);
            outcome
        };
        let (outcome, unread, (), ()) = tokio::join!(
            outcome,
            feed(self.stdin, context, limit, end.clone()),
            follow(&self.stdout, Channel::Stdout, sink, end.clone()),
            follow(&self.stderr, Channel::Stderr, sink, end),
        );
        let outcome = outcome?;
        drain(&self.stdout, Channel::Stdout, sink).await;
        drain(&self.stderr, Channel::Stderr, sink).await;
        Ok(Finished { outcome, unread })
    }
}

type Ours = (Sender, Receiver, Receiver);
type Receive = watch::Receiver<bool>;

/// The script's ends stay blocking, as every program expects; ours do not.
fn pipes() -> io::Result<(Ours, [OwnedFd; 3])> {
    let (stdin_read, stdin_write) = pipe::pipe()?;
    let (stdout_read, stdout_write) = pipe::pipe()?;
    let (stderr_read, stderr_write) = pipe::pipe()?;
    let ours = (
        Sender::from_owned_fd(stdin_write)?,
        Receiver::from_owned_fd(stdout_read)?,
        Receiver::from_owned_fd(stderr_read)?,
    );
    Ok((ours, [stdin_read, stdout_write, stderr_write]))
}

/// Writes the context. A script may ignore or close its stdin; one that reads too slowly loses the rest, whose size is
/// returned.
async fn feed(mut stdin: Sender, context: &[u8], limit: Duration, mut end: Receive) -> Option<usize> {
    let mut left = context;
    let writing = async {
        while !left.is_empty() {
            match stdin.write(left).await {
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

/// Passes a stream on to its end, or to the end of the script.
async fn follow<S: Sink>(pipe: &Receiver, channel: Channel, sink: &S, mut end: Receive) {
    let mut chunk = vec![0; CHUNK];
    loop {
        tokio::select! {
            biased;
            _ = end.wait_for(|ended| *ended) => return,
            ready = pipe.readable() => if ready.is_err() { return },
        }
        match pipe.try_read(&mut chunk) {
            Ok(0) => return,
            Ok(count) => sink.take(channel, chunk.get(..count).unwrap_or_default()).await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Passes on what is in the pipe now. It asks the kernel and not the runtime, which may have seen the script's end
/// before it has looked at its pipes again.
async fn drain<S: Sink>(source: &Receiver, channel: Channel, sink: &S) {
    let mut chunk = vec![0; CHUNK];
    for _ in 0..LEFTOVER_CHUNKS {
        let Ok(count @ 1..) = pipe::read(source, &mut chunk) else { return };
        sink.take(channel, chunk.get(..count).unwrap_or_default()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::agent::collect::Collector;

    fn pipe() -> (Receiver, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Receiver::from_owned_fd(reader.into()).unwrap(), writer)
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_read_to_its_end() {
        let (pipe, mut writer) = pipe();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; 1 << 20]).unwrap());
        let collector = Collector::new(1000);
        let (_running, end) = watch::channel(false);
        follow(&pipe, Channel::Stdout, &collector, end).await;
        writing.join().unwrap();
        let output = collector.finish().0;
        assert_eq!((output.text.len(), output.truncated), (1000, true));
    }

    #[tokio::test]
    async fn a_pipe_that_is_held_open_delays_nothing() {
        let (pipe, mut writer) = pipe();
        // The runtime has had no occasion to notice.
        writer.write_all(b"done").unwrap();
        let collector = Collector::new(100);
        let (_running, end) = watch::channel(true);
        follow(&pipe, Channel::Stdout, &collector, end).await;
        drain(&pipe, Channel::Stdout, &collector).await;
        assert_eq!(collector.finish().0.text, "done");
        drop(writer);
    }
}
