//! Answers that are whole and wait to be read. Nothing is done for them any more, but they take room: a little memory, and
//! on disk as much as a script has printed. So they are bounded in number and in bytes, of one dispatcher and in all, and in
//! time.
//!
//! That of which longest nothing was taken gives way; for its bytes only if that is some time ago: who reads has all of his
//! answer, however many others there are. With HTTP/2 its stream is reset; with HTTP/1 its connection ends. What has left here
//! waits in the connection's own buffers, of which each is small.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::{JoinHandle, spawn_blocking};

use super::large::{Large, MADE, Parts};
use crate::audit::{Event, Level, Logger};
use crate::net::crowd::{Crowd, Place};
use crate::net::serve::Cut;
use crate::store::StoreError;
use crate::wire::name::DispatcherId;

/// How many of them, in all and of one dispatcher: more than one who reads ever has. In memory each has less than
/// 256 KiB.
const ANSWERS: (usize, usize) = (4096, 1024);
/// Their bytes, in memory or on disk, likewise. Beyond that those give way of which nothing was taken for so long: longer
/// than a slow line takes for what its kernel buffers hold.
const BYTES: (usize, usize) = (512 << 20, 128 << 20);
const READS: Duration = Duration::from_secs(10);
/// A connection gets so much at a time, as a piece of its own: one that shared its memory with the rest would hold the rest.
const PIECE: usize = 16 * 1024;
/// And at most so much at last, since what HTTP/2 sends last has left here before it is taken.
const LAST: usize = 1024;
/// The answers that wait.
pub type Unread = Crowd<DispatcherId>;

/// Room for them.
#[must_use]
pub fn room() -> Arc<Unread> {
    Crowd::sparing(ANSWERS, BYTES, READS)
}

/// A whole answer's body.
#[derive(Debug)]
pub struct Whole {
    /// What is made and was not taken.
    made: Bytes,
    /// How much was not taken.
    left: u64,
    /// What is not made.
    rest: Rest,
    /// A piece of it was taken.
    begun: bool,
    /// While it counts.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
enum Rest {
    /// Nothing.
    None,
    Some(Box<Parts>),
    /// More is being made of it.
    Making(JoinHandle<Result<(Box<Parts>, Bytes), StoreError>>),
}

/// Who is to read an answer, and how he hears that he has waited too long.
#[derive(Debug)]
pub struct Reader {
    /// By its certificate.
    pub dispatcher: DispatcherId,
    /// Where it is.
    pub address: IpAddr,
    /// Ends the answer.
    pub cut: Cut,
    /// Hears of that.
    pub log: Logger,
}

#[derive(Debug)]
struct Waiting {
    room: Arc<Unread>,
    reader: Reader,
    place: Place<DispatcherId>,
}

impl Whole {
    /// A body that does not count yet.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        let left = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Self { made: bytes, left, rest: Rest::None, begun: false, waiting: None }
    }

    /// One that is made while it is taken.
    pub(super) fn large(large: Large) -> Self {
        let (left, made, parts) = large.into_parts();
        Self { made: Bytes::from(made), left, rest: Rest::Some(Box::new(parts)), begun: false, waiting: None }
    }

    /// Counts it among its reader's others from now on.
    pub fn counted(&mut self, room: &Arc<Unread>, reader: Reader) {
        let place =
            room.enter_heavy(&reader.dispatcher, usize::try_from(self.left).unwrap_or(usize::MAX), reader.cut.signal());
        self.waiting = Some(Waiting { room: Arc::clone(room), reader, place });
    }

    /// The next piece; nothing when all are taken, or not enough is made for one.
    fn piece(&mut self) -> Option<Bytes> {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let size = match left {
            0 => return None,
            last @ ..=LAST => Some(last).filter(|last| *last <= self.made.len())?,
            more => (more - LAST).min(PIECE).min(self.made.len()),
        };
        if size == 0 {
            return None;
        }
        let piece = self.made.split_to(size);
        self.left -= u64::try_from(size).unwrap_or(u64::MAX);
        let is_all = !self.begun && self.left == 0;
        Some(if is_all { piece } else { Bytes::copy_from_slice(&piece) })
    }

    /// Has more made, and takes it when it is.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Rest::Making(making) = &mut self.rest {
            let made = ready!(Pin::new(making).poll(context));
            self.rest = Rest::None;
            let (rest, made) = made.map_err(io::Error::other)?.map_err(io::Error::other)?;
            if made.len() <= self.made.len() {
                // Shorter than it was when its length was told: the connection must not seem to hold an answer.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            (self.made, self.rest) = (made, Rest::Some(rest));
            return Poll::Ready(Ok(()));
        }
        let Rest::Some(mut rest) = std::mem::replace(&mut self.rest, Rest::None) else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        let mut made = self.made.to_vec();
        self.rest = Rest::Making(spawn_blocking(move || {
            rest.fill(&mut made, MADE)?;
            Ok((rest, Bytes::from(made)))
        }));
        self.poll_more(context)
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        // Who comes for the next has taken the one before.
        let came_again = this.begun && !matches!(this.rest, Rest::Making(_));
        this.waiting.iter().filter(|_| came_again).for_each(|waiting| waiting.place.renew());
        while this.left > 0 {
            if let Some(piece) = this.piece() {
                this.begun = true;
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Err(error) = ready!(this.poll_more(context)) {
                return Poll::Ready(Some(Err(error)));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.place.is_lost() {
            let Reader { dispatcher, address, log, .. } = &self.reader;
            let event = Event::new(Level::Warning, "unread").field("DISPATCHER", dispatcher);
            log.emit(event.field("PEER", address).field("WAITING", self.room.held()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(length: usize) -> Vec<usize> {
        let text: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut body = Whole::new(Bytes::from(text.clone()));
        assert_eq!(body.size_hint().exact(), Some(length as u64));
        let mut taken = Vec::new();
        while !body.is_end_stream() {
            let polled = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            let Poll::Ready(Some(Ok(frame))) = polled else { panic!("{polled:?}") };
            taken.push(frame.into_data().unwrap());
        }
        assert_eq!(taken.concat(), text);
        taken.iter().map(Bytes::len).collect()
    }

    #[test]
    fn an_answer_leaves_in_small_pieces_of_which_the_last_is_the_smallest() {
        assert_eq!(pieces(1), [1]);
        assert_eq!(pieces(LAST), [LAST]);
        assert_eq!(pieces(LAST + 1), [1, LAST]);
        assert_eq!(pieces(LAST + PIECE), [PIECE, LAST]);
        assert_eq!(pieces(LAST + 2 * PIECE + 1), [PIECE, PIECE, 1, LAST]);
        assert!(pieces(0).is_empty());
    }
}
