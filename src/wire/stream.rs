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
        match frame {
            Frame::Output(channel, bytes) => self.output(*channel, bytes),
            Frame::Idle => self.frame(IDLE, &[]),
            Frame::End(json) => self.frame(END, json),
        }
    }

    /// As [`Encoder::encode`] of [`Frame::Output`], for bytes that are somebody else's.
    #[must_use]
    pub fn output(&mut self, channel: Channel, bytes: &[u8]) -> Vec<u8> {
        let kind = match channel {
            Channel::Stdout => STDOUT,
            Channel::Stderr => STDERR,
        };
        self.frame(kind, bytes)
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.push(kind);
        bytes.extend_from_slice(&self.next.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(payload);
        self.next += 1;
        bytes
    }
}

/// Decodes a body that arrives in pieces of any size. Output is handed out as it arrives: nothing of it is kept, and one
/// frame of it may come out in several parts.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame's head.
    head: Vec<u8>,
    open: Option<Open>,
    next: u64,
    ended: bool,
}

/// A frame whose payload has not arrived whole.
#[derive(Debug)]
enum Open {
    Output(Channel, usize),
    End(Vec<u8>, usize),
}

impl Decoder {
    /// What the piece begins with, which is taken off it; nothing once all of the piece has been taken.
    ///
    /// # Errors
    /// The body is no stream of frames.
    pub fn next_frame(&mut self, piece: &mut &[u8]) -> Result<Option<Frame>, StreamError> {
        while !piece.is_empty() {
            if self.ended {
                return Err(StreamError::AfterEnd);
            }
            let frame = match self.open.take() {
                None => self.begin(piece)?,
                Some(Open::Output(channel, left)) => {
                    let bytes = take(piece, left);
                    self.open = (bytes.len() < left).then_some(Open::Output(channel, left - bytes.len()));
                    Some(Frame::Output(channel, bytes.to_vec()))
                }
                Some(Open::End(json, left)) => self.end(json, left, piece),
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// Takes of the head what is there.
    fn begin(&mut self, piece: &mut &[u8]) -> Result<Option<Frame>, StreamError> {
        let wanted = HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(take(piece, wanted));
        let Some((kind, sequence, size)) = whole_head(&self.head) else { return Ok(None) };
        self.head.clear();
        if size > PAYLOAD {
            return Err(StreamError::TooLarge);
        }
        if sequence != self.next {
            return Err(StreamError::Sequence);
        }
        self.next += 1;
        let output = |channel| (size > 0).then_some(Open::Output(channel, size));
        match kind {
            STDOUT => self.open = output(Channel::Stdout),
            STDERR => self.open = output(Channel::Stderr),
            IDLE if size == 0 => return Ok(Some(Frame::Idle)),
            END => return Ok(self.end(Vec::new(), size, piece)),
            _ => return Err(StreamError::Kind),
        }
        Ok(None)
    }

    fn end(&mut self, mut json: Vec<u8>, left: usize, piece: &mut &[u8]) -> Option<Frame> {
        let bytes = take(piece, left);
        json.extend_from_slice(bytes);
        if bytes.len() < left {
            self.open = Some(Open::End(json, left - bytes.len()));
            return None;
        }
        self.ended = true;
        Some(Frame::End(json))
    }
}

/// At most `most` bytes off the beginning.
fn take<'a>(piece: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = piece.split_at(most.min(piece.len()));
    *piece = rest;
    taken
}

fn whole_head(head: &[u8]) -> Option<(u8, u64, usize)> {
    let (kind, rest) = head.split_first()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let size = rest.first_chunk::<4>()?;
    let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
    Some((*kind, u64::from_be_bytes(*sequence), size))
}

/// How much of the beginning is whole characters: all but one at the end that has not arrived whole (at most three
/// bytes). What is wrong otherwise stays wrong, however much more arrives.
#[must_use]
pub fn whole_characters(bytes: &[u8]) -> usize {
    let begun = |place: &usize| bytes.get(*place..).is_some_and(begins_a_character);
    (bytes.len().saturating_sub(3)..bytes.len()).find(begun).unwrap_or(bytes.len())
}

/// Whether this is one character's beginning and no more.
fn begins_a_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Output(Channel::Stdout, b"a".to_vec()),
            Frame::Output(Channel::Stderr, b"b".to_vec()),
            Frame::Idle,
            Frame::Output(Channel::Stdout, vec![0xff; PAYLOAD]),
            Frame::End(b"{}".to_vec()),
        ]
    }

    fn body() -> Vec<u8> {
        let mut encoder = Encoder::default();
        // A frame without a byte is nothing to anybody.
        let empty = encoder.output(Channel::Stdout, &[]);
        empty.into_iter().chain(frames().iter().flat_map(|frame| encoder.encode(frame))).collect()
    }

    /// The frames of a body; parts of output that follow each other are one here.
    fn decode(pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Frame>, StreamError> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in pieces {
            let mut rest = piece.as_slice();
            while let Some(frame) = decoder.next_frame(&mut rest)? {
                match (found.last_mut(), frame) {
                    (Some(Frame::Output(last, bytes)), Frame::Output(channel, more)) if *last == channel => {
                        bytes.extend(more);
                    }
                    (_, frame) => found.push(frame),
                }
            }
            assert!(rest.is_empty());
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
        let unknown = [&[9], &[0; HEAD - 1][..]].concat();
        assert_eq!(decode(std::iter::once(unknown)), Err(StreamError::Kind));
    }

    #[test]
    fn a_character_is_never_cut_in_two() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(b"a\xc3"), 1);
        assert_eq!(whole_characters(b"a\xff"), 2);
    }

    #[test]
    fn a_character_behind_bytes_that_are_no_text_is_not_cut_in_two_either() {
        assert_eq!(whole_characters(b"\xff\xc3"), 1);
        assert_eq!(whole_characters(b"\xff\xf0\x9f\x98"), 1);
        assert_eq!(whole_characters(b"\xc3\xff\x80"), 3);
        assert_eq!(whole_characters(b"\xf0\x9f\x98\x80"), 4);
        assert_eq!(whole_characters(b""), 0);
    }
}
