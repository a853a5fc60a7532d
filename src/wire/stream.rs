//! A run's output as it is printed: the body of a streamed answer to `POST /run`.
//!
//! A caller asks for it with `Accept`; an agent that does not know it answers plain JSON, and so does ours where
//! nothing was started. The body is a sequence of frames: kind (1 byte), sequence number (8 bytes), length of the
//! payload (4 bytes), payload; numbers big-endian. Sequence numbers count from 0 without gaps, so that a body that was
//! cut and one that was altered are both noticed. The last frame is [`Frame::End`]; a body without one was cut short,
//! and its outcome is unknown.

/// Media type of a streamed answer.
pub const MEDIA_TYPE: &str = "application/vnd.ctrl-exec.run-stream";
/// Bytes before a payload.
pub const HEAD: usize = 13;
/// Largest payload, in bytes.
pub const PAYLOAD: usize = 256 * 1024;

/// One of a script's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Channel {
    /// The name in JSON and in prefixes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes that the script printed.
    Output(Channel, Vec<u8>),
    /// The script runs and prints nothing; the connection lives.
    Idle,
    /// It has ended: the reply as JSON, without output.
    End(Vec<u8>),
}

/// A body that is no stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// An unknown kind of frame.
    #[error("the agent sent a frame of an unknown kind")]
    Kind,
    /// A payload beyond [`PAYLOAD`].
    #[error("the agent sent a frame that is too large")]
    TooLarge,
    /// A gap or a repetition in the sequence.
    #[error("the agent sent frames out of sequence")]
    Sequence,
    /// Something behind the end.
    #[error("the agent sent more after the end")]
    AfterEnd,
}

const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const END: u8 = 3;
const IDLE: u8 = 4;

/// Encodes frames, numbering them.
#[derive(Debug, Default)]
pub struct Encoder {
    next: u64,
}

impl Encoder {
    /// One frame's bytes. A payload is at most [`PAYLOAD`] bytes; the agent reads its pipes in smaller pieces.
    #[must_use]
    pub fn encode(&mut self, frame: &Frame) -> Vec<u8> {
        let (kind, payload): (u8, &[u8]) = match frame {
            Frame::Output(Channel::Stdout, bytes) => (STDOUT, bytes),
            Frame::Output(Channel::Stderr, bytes) => (STDERR, bytes),
            Frame::Idle => (IDLE, &[]),
            Frame::End(json) => (END, json),
        };
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.push(kind);
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(payload);
        self.next += 1;
        bytes
    }
}

/// Decodes a body that arrives in pieces of any size. It never holds more than one frame and one piece.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    next: u64,
    ended: bool,
}

impl Decoder {
    /// Takes a piece of the body.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole frame, if there is one.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.ended && !self.buffer.is_empty() {
            return Err(StreamError::AfterEnd);
        }
        let Some((kind, sequence, size)) = self.head() else { return Ok(None) };
        if size > PAYLOAD {
            return Err(StreamError::TooLarge);
        }
        if sequence != self.next {
            return Err(StreamError::Sequence);
        }
        let Some(payload) = self.buffer.get(HEAD..HEAD + size).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..HEAD + size);
        self.next += 1;
        let frame = match kind {
            STDOUT => Frame::Output(Channel::Stdout, payload),
            STDERR => Frame::Output(Channel::Stderr, payload),
            IDLE => Frame::Idle,
            END => Frame::End(payload),
            _ => return Err(StreamError::Kind),
        };
        self.ended = matches!(frame, Frame::End(_));
        Ok(Some(frame))
    }

    fn head(&self) -> Option<(u8, u64, usize)> {
        let (kind, rest) = self.buffer.split_first()?;
        let (sequence, rest) = rest.split_first_chunk::<8>()?;
        let size = rest.first_chunk::<4>()?;
        let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        Some((*kind, u64::from_be_bytes(*sequence), size))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Output(Channel::Stdout, b"a".to_vec()),
            Frame::Output(Channel::Stderr, Vec::new()),
            Frame::Idle,
            Frame::Output(Channel::Stdout, vec![0xff; PAYLOAD]),
            Frame::End(b"{}".to_vec()),
        ]
    }

    fn body() -> Vec<u8> {
        let mut encoder = Encoder::default();
        frames().iter().flat_map(|frame| encoder.encode(frame)).collect()
    }

    fn decode(pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Frame>, StreamError> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(&piece);
            while let Some(frame) = decoder.next_frame()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn a_body_is_read_whatever_pieces_it_comes_in(size in 1_usize..70_000) {
            prop_assert_eq!(decode(body().chunks(size).map(<[u8]>::to_vec)).unwrap(), frames());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(std::iter::once(bytes));
        }
    }

    #[test]
    fn a_missing_frame_a_huge_one_and_one_behind_the_end_are_noticed() {
        let mut encoder = Encoder::default();
        let (first, second) = (encoder.encode(&Frame::Idle), encoder.encode(&Frame::Idle));
        assert_eq!(decode(std::iter::once(second)), Err(StreamError::Sequence));
        assert_eq!(decode([first.clone(), first.clone()].into_iter()), Err(StreamError::Sequence));
        let mut huge = first;
        huge[9] = 0xff;
        assert_eq!(decode(std::iter::once(huge)), Err(StreamError::TooLarge));
        assert_eq!(decode([body(), vec![0]].into_iter()), Err(StreamError::AfterEnd));
        assert_eq!(decode(std::iter::once(vec![9; HEAD])), Err(StreamError::TooLarge));
    }
}
