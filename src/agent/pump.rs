//! A script's output, from its pipe to a [`Sink`].
//!
//! A pipe is watched, and what it brings is passed on at once. On a busy host a script that prints as fast as it can is
//! then heard after each of its small writes, and being told of them costs more than what is written: such a pipe is made
//! larger and looked at once in a while.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe::Receiver;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::coop::consume_budget;
use tokio::time::sleep;

use crate::sys::pipe;
use crate::wire::stream::{Channel, Draft, HEAD};

/// Bytes taken from a pipe at a time: with the heads of their frame and of HTTP/2's (RFC 9113 4.1) exactly four records
/// of TLS (RFC 8446 5.1), so that no frame leaves a few bytes to one of their own.
const CHUNK: usize = 4 * 16 * 1024 - HEAD - 9;
/// So many bytes within so much time are a flood, if they come in pieces of less than so many on average.
const FLOOD: (usize, Duration, usize) = (1 << 20, Duration::from_millis(50), 16 * 1024);
/// Bytes that a pipe holds which nobody has made larger (pipe(7)).
const ORDINARY_PIPE: usize = 64 * 1024;
/// Bytes that the pipe of a flood holds: as many as the system lets anybody have (pipe(7), `pipe-max-size`).
const LARGE_PIPE: usize = 1 << 20;
/// Time between two looks at the pipe of a flood.
const PAUSE: Duration = Duration::from_millis(1);
/// So many looks in a row that bring less than a chunk are its end.
const LOOKS: usize = 8;
/// After so many bytes the pipe is watched again: the host may have become less busy.
const LOOKED_AT: usize = 64 << 20;
/// So many pipes are large at once. With the three ordinary ones of each of 256 scripts they stay below what one user may
/// have before the kernel makes his new pipes tiny (pipe(7), `pipe-user-pages-soft`: 64 MiB).
static LARGE_PIPES: Semaphore = Semaphore::const_new(16);
/// Most chunks taken after the script's end. A pipe holds at most 1 MiB (pipe(7), `pipe-max-size`); more can only come
/// from a process that still prints.
const LEFTOVER_CHUNKS: usize = 32;
/// What a script has left is taken in such pieces, unless it fills one: the room of a chunk costs more than to ask.
const LITTLE: usize = 1024;

/// Where output goes. A sink that takes its time holds the script back, through its pipe.
pub trait Sink: Sync {
    /// Takes a piece of one stream, in the stream's order. It may keep the draft's bytes.
    fn take(&self, channel: Channel, draft: &mut Draft) -> impl Future<Output = ()> + Send;
}

/// Becomes true when the script has ended.
pub(super) type Receive = watch::Receiver<bool>;

/// Passes a stream on to its end, or to the end of the script. The pipe is returned: something may be left in it.
///
/// # Errors
/// The pipe cannot be watched: the process is out of memory.
pub(super) async fn follow<S: Sink>(
    pipe: OwnedFd,
    channel: Channel,
    sink: &S,
    mut end: Receive,
) -> io::Result<OwnedFd> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    loop {
        let flood = watched(&pipe, channel, sink, &mut end).await;
        let unwatched = pipe.into_nonblocking_fd()?;
        let Some(_place) = flood else { return Ok(unwatched) };
        if looked_at(&unwatched, channel, sink, &mut end).await {
            return Ok(unwatched);
        }
        pipe = Receiver::from_owned_fd(unwatched)?;
    }
}

/// Passes on what comes, as soon as it comes: until the stream is over; or until it is a flood, which has a place.
async fn watched<S: Sink>(
    pipe: &Receiver,
    channel: Channel,
    sink: &S,
    end: &mut Receive,
) -> Option<SemaphorePermit<'static>> {
    let (mut draft, mut pace) = (Draft::new(CHUNK), Pace::new());
    loop {
        tokio::select! {
            biased;
            _ = end.wait_for(|ended| *ended) => return None,
            ready = pipe.readable() => if ready.is_err() { return None },
        }
        match fill(pipe, draft.room()) {
            Ok(0) => return None,
            Ok(count) => {
                sink.take(channel, &mut draft).await;
                if pace.is_flood(count)
                    && let Some(place) = flooded(pipe)
                {
                    return Some(place);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
        // A script that prints faster than it is read would otherwise leave no moment to hear that its caller is gone.
        consume_budget().await;
    }
}

/// How much came since when, in how many pieces.
struct Pace {
    since: Instant,
    bytes: usize,
    pieces: usize,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, pieces: 0 }
    }

    /// Takes note of a piece, and judges when there is enough to judge by.
    fn is_flood(&mut self, count: usize) -> bool {
        self.bytes += count;
        self.pieces += 1;
        let (most, within, small) = FLOOD;
        if self.bytes < most {
            return false;
        }
        let Self { since, bytes, pieces } = std::mem::replace(self, Self::new());
        since.elapsed() < within && bytes / pieces < small
    }
}

/// Takes what is there, in as many pieces as it was printed, until there is no room or nothing more; 0 bytes is the end.
fn fill(pipe: &Receiver, room: &mut Vec<u8>) -> io::Result<usize> {
    let held = room.len();
    while room.len() < room.capacity() {
        match pipe.try_read_buf(room) {
            Ok(1..) => {}
            Err(error) if room.len() == held => return Err(error),
            Ok(0) | Err(_) => break,
        }
    }
    Ok(room.len() - held)
}

/// Makes the pipe a large one, where there is a place for it and the system's limits allow it.
fn flooded(pipe: &Receiver) -> Option<SemaphorePermit<'static>> {
    let place = LARGE_PIPES.try_acquire().ok()?;
    pipe::resize(pipe, LARGE_PIPE).ok().map(|()| place)
}

/// Passes on what has gathered, once in a while, until it is little or was much, and the pipe is an ordinary one again.
/// Whether the stream is over.
///
/// **Invariant:** who gives up its place has no large pipe any more.
async fn looked_at<S: Sink>(pipe: &OwnedFd, channel: Channel, sink: &S, end: &mut Receive) -> bool {
    let (mut draft, mut calm, mut all) = (Draft::new(CHUNK), 0, 0);
    // It can be made smaller as soon as what it holds has room in it.
    while (calm < LOOKS && all < LOOKED_AT) || pipe::resize(pipe, ORDINARY_PIPE).is_err() {
        tokio::select! {
            biased;
            _ = end.wait_for(|ended| *ended) => return true,
            () = sleep(PAUSE) => {}
        }
        let mut gathered = 0;
        loop {
            match pipe::append(pipe, draft.room(), CHUNK) {
                Ok(count @ 1..) => gathered += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => return true,
            }
            sink.take(channel, &mut draft).await;
            if *end.borrow() {
                return true;
            }
            consume_budget().await;
        }
        all += gathered;
        calm = if gathered < CHUNK { calm + 1 } else { 0 };
    }
    false
}

/// Passes on what is in the pipe now. It asks the kernel and not the runtime, which may have seen the script's end
/// before it has looked at its pipes again. Whether there was anything.
pub(super) async fn drain<S: Sink>(source: &OwnedFd, channel: Channel, sink: &S) -> bool {
    let mut any = false;
    let mut little = [0; LITTLE];
    let mut draft = Draft::new(LITTLE);
    for _ in 0..LEFTOVER_CHUNKS {
        let Ok(count @ 1..) = pipe::read(source, &mut little) else { return any };
        any = true;
        draft.room().extend_from_slice(little.get(..count).unwrap_or_default());
        sink.take(channel, &mut draft).await;
        if count == LITTLE {
            break;
        }
    }
    let mut draft = Draft::new(CHUNK);
    for _ in 0..LEFTOVER_CHUNKS {
        let Ok(1..) = pipe::append(source, draft.room(), CHUNK) else { return any };
        any = true;
        sink.take(channel, &mut draft).await;
    }
    any
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::agent::collect::tests::{collector, outputs};
    use crate::wire::run::Output;

    fn pipe() -> (OwnedFd, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (reader.into(), writer)
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_read_to_its_end() {
        let (pipe, mut writer) = pipe();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; 4 << 20]).unwrap());
        let (collector, _dir) = collector(1000);
        let (_running, end) = watch::channel(false);
        follow(pipe, Channel::Stdout, &collector, end).await.unwrap();
        writing.join().unwrap();
        let [output, _] = outputs(collector).await;
        assert_eq!((output.text.len(), output.truncated), (1000, true));
    }

    #[tokio::test]
    async fn a_pipe_that_is_held_open_delays_nothing() {
        let (pipe, mut writer) = pipe();
        // The runtime has had no occasion to notice.
        writer.write_all(b"done").unwrap();
        let (collector, _dir) = collector(100);
        let (_running, end) = watch::channel(true);
        let pipe = follow(pipe, Channel::Stdout, &collector, end).await.unwrap();
        drain(&pipe, Channel::Stdout, &collector).await;
        let [output, _] = outputs(collector).await;
        assert_eq!(output.text, "done");
        drop(writer);
    }

    /// Endless output in pieces of a size, until nobody reads it.
    fn endless(mut writer: std::io::PipeWriter, piece: usize) {
        std::thread::spawn(move || while writer.write_all(&vec![b'x'; piece]).is_ok() {});
    }

    #[tokio::test]
    async fn endless_output_leaves_a_moment_for_others() {
        for piece in [2, CHUNK] {
            let (pipe, writer) = pipe();
            endless(writer, piece);
            let (collector, _dir) = collector(1000);
            let (running, end) = watch::channel(false);
            tokio::select! {
                _ = follow(pipe, Channel::Stdout, &collector, end) => panic!("it has no end"),
                () = sleep(Duration::from_millis(50)) => {}
            }
            drop(running);
        }
    }

    #[tokio::test]
    async fn a_flood_that_calms_down_is_heard_and_ends_with_its_script() {
        let (pipe, mut writer) = pipe();
        let (collector, _dir) = collector(8 << 20);
        let (running, end) = watch::channel(false);
        let following = follow(pipe, Channel::Stdout, &collector, end);
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_all(&vec![b'x'; 4 << 20]).unwrap();
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(2));
                writer.write_all(b"y").unwrap();
            }
            running.send_replace(true);
            writer
        });
        let pipe = following.await.unwrap();
        drain(&pipe, Channel::Stdout, &collector).await;
        drop(writing.await.unwrap());
        let [Output { text, .. }, _] = outputs(collector).await;
        assert_eq!((text.len(), text.matches('y').count()), ((4 << 20) + 20, 20));
    }

    #[tokio::test]
    async fn the_pipe_of_a_flood_is_an_ordinary_one_again_when_it_is_over() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        pipe::resize(&reader, LARGE_PIPE).unwrap();
        pipe::set_nonblocking(&reader, true).unwrap();
        let (collector, _dir) = collector(8 << 20);
        let (_running, mut end) = watch::channel(false);
        let reader = OwnedFd::from(reader);
        writer.write_all(&vec![b'x'; LARGE_PIPE]).unwrap();
        assert!(!looked_at(&reader, Channel::Stdout, &collector, &mut end).await);
        pipe::set_nonblocking(&writer, true).unwrap();
        assert_eq!(std::iter::from_fn(|| writer.write(&[0; 4096]).ok()).sum::<usize>(), ORDINARY_PIPE);
    }
}
