//! Answers that are whole and wait to be read. Nothing is done for them any more, but they take memory, as much as a script
//! has printed: so they are bounded in number and in bytes, of one dispatcher and in all, and in time.
//!
//! That of which longest nothing was taken gives way. With HTTP/2 its stream is reset; with HTTP/1 its connection ends.
//! What has left here waits in the connection's own buffers, of which each is small.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::audit::{Event, Level, Logger};
use crate::net::crowd::{Crowd, Place};
use crate::net::serve::Cut;
use crate::wire::name::DispatcherId;

/// How many of them, in all and of one dispatcher: more than one who reads ever has.
const ANSWERS: (usize, usize) = (4096, 1024);
/// Their bytes, likewise: the largest answer of `max_output` with text is a fourth of the second.
const BYTES: (usize, usize) = (512 << 20, 128 << 20);
/// A connection gets so much at a time, as a piece of its own: one that shared its memory with the rest would hold the rest.
const PIECE: usize = 16 * 1024;
/// And at most so much at last, since what HTTP/2 sends last has left here before it is taken.
const LAST: usize = 1024;
/// The answers that wait.
pub type Unread = Crowd<DispatcherId>;

/// Room for them.
#[must_use]
pub fn room() -> Arc<Unread> {
    Crowd::bounded(ANSWERS, BYTES)
}

/// A whole answer's body.
#[derive(Debug)]
pub struct Whole {
    rest: Bytes,
    /// A piece of it was taken.
    begun: bool,
    /// While it counts.
    waiting: Option<Waiting>,
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
    pub const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, begun: false, waiting: None }
    }

    /// Counts it among its reader's others from now on.
    pub fn counted(&mut self, room: &Arc<Unread>, reader: Reader) {
        let place = room.enter_heavy(&reader.dispatcher, self.rest.len(), reader.cut.signal());
        self.waiting = Some(Waiting { room: Arc::clone(room), reader, place });
    }

    /// The next piece; nothing when all are taken.
    fn piece(&mut self) -> Option<Bytes> {
        let size = match self.rest.len() {
            0 => return None,
            last @ ..=LAST => last,
            more => (more - LAST).min(PIECE),
        };
        let piece = self.rest.split_to(size);
        let is_all = !self.begun && self.rest.is_empty();
        Some(if is_all { piece } else { Bytes::copy_from_slice(&piece) })
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = this.piece();
        // Who comes for the next has taken the one before.
        let came_again = std::mem::replace(&mut this.begun, true);
        this.waiting.iter().filter(|_| came_again).for_each(|waiting| waiting.place.renew());
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.rest.len()).unwrap_or(u64::MAX))
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
