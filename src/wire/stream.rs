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
pub enum Frame<'a> {
    /// Bytes that the script printed.
    Output(Channel, &'a [u8]),
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

/// Output that is read straight to where its frame will be: room for the head is kept before it.
#[derive(Debug)]
pub struct Draft {
    /// The head's room, and what was read.
    bytes: Vec<u8>,
    most: usize,
}

impl Draft {
    /// Room for at most `most` bytes of output, at most [`PAYLOAD`]. Memory is taken when it is first written to.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }

    /// Where to append output, empty but for the head's room, with capacity for as much as there is room for.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.clear();
        self.bytes.reserve_exact(HEAD + self.most);
        self.bytes.extend_from_slice(&[0; HEAD]);
        &mut self.bytes
    }

    /// What was read.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.bytes.get(HEAD..).unwrap_or_default()
    }

    /// The bytes as a frame's. A small piece is copied out: many of them may wait, and should not each hold on to
    /// the room of a large one.
    fn take(&mut self) -> Vec<u8> {
        if self.output().len() < self.most / 2 { self.bytes.clone() } else { std::mem::take(&mut self.bytes) }
    }
}

/// Encodes frames, numbering them.
#[derive(Debug, Default)]
pub struct Encoder {
    next: u64,
}

impl Encoder {
    /// One frame's bytes. A payload is at most [`PAYLOAD`] bytes; the agent reads its pipes in smaller pieces.
    #[must_use]
    pub fn encode(&mut self, frame: &Frame<'_>) -> Vec<u8> {
        let (kind, payload) = match frame {
            Frame::Output(channel, bytes) => (kind(*channel), *bytes),
            Frame::Idle => (IDLE, &[][..]),
            Frame::End(json) => (END, json.as_slice()),
        };
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.extend_from_slice(&self.head(kind, payload.len()));
        bytes.extend_from_slice(payload);
        bytes
    }

    /// As [`Encoder::encode`] of [`Frame::Output`], without a copy of what is large.
    #[must_use]
    pub fn output(&mut self, channel: Channel, draft: &mut Draft) -> Vec<u8> {
        let head = self.head(kind(channel), draft.output().len());
        let mut bytes = draft.take();
        for (place, byte) in bytes.iter_mut().zip(head) {
            *place = byte;
        }
        bytes
    }

    fn head(&mut self, kind: u8, size: usize) -> [u8; HEAD] {
        let (number, size) = (self.next.to_be_bytes(), u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        self.next += 1;
        let mut head = [kind; HEAD];
        for (place, byte) in head.iter_mut().skip(1).zip(number.into_iter().chain(size)) {
            *place = byte;
        }
        head
    }
}

const fn kind(channel: Channel) -> u8 {
    match channel {
        Channel::Stdout => STDOUT,
        Channel::Stderr => STDERR,
    }
}

/// Decodes a body that arrives in pieces of any size. Output is handed out as it arrives: nothing of it is kept or
/// copied, and one frame of it may come out in several parts.
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
    pub fn next_frame<'a>(&mut self, piece: &mut &'a [u8]) -> Result<Option<Frame<'a>>, StreamError> {
        while !piece.is_empty() {
            if self.ended {
                return Err(StreamError::AfterEnd);
            }
            let frame = match self.open.take() {
                None => self.begin(piece)?,
                Some(Open::Output(channel, left)) => {
                    let bytes = take(piece, left);
                    self.open = (bytes.len() < left).then_some(Open::Output(channel, left - bytes.len()));
                    Some(Frame::Output(channel, bytes))
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
    fn begin<'a>(&mut self, piece: &mut &'a [u8]) -> Result<Option<Frame<'a>>, StreamError> {
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

    fn end<'a>(&mut self, mut json: Vec<u8>, left: usize, piece: &mut &'a [u8]) -> Option<Frame<'a>> {
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

    const LARGE: &[u8] = &[0xff; PAYLOAD];

    fn frames() -> Vec<Frame<'static>> {
        vec![
            Frame::Output(Channel::Stdout, b"a"),
            Frame::Output(Channel::Stderr, b"b"),
            Frame::Idle,
            Frame::Output(Channel::Stdout, LARGE),
            Frame::End(b"{}".to_vec()),
        ]
    }

    /// What a decoder told, with its own copy of the output.
    #[derive(Debug, PartialEq, Eq)]
    enum Told {
        Output(Channel, Vec<u8>),
        Other(Frame<'static>),
    }

    impl From<Frame<'_>> for Told {
        fn from(frame: Frame<'_>) -> Self {
            match frame {
                Frame::Output(channel, bytes) => Self::Output(channel, bytes.to_vec()),
                Frame::Idle => Self::Other(Frame::Idle),
                Frame::End(json) => Self::Other(Frame::End(json)),
            }
        }
    }

    fn told() -> Vec<Told> {
        frames().into_iter().map(Told::from).collect()
    }

    fn body() -> Vec<u8> {
        let mut encoder = Encoder::default();
        // A frame without a byte is nothing to anybody.
        let empty = encoder.encode(&Frame::Output(Channel::Stdout, &[]));
        empty.into_iter().chain(frames().iter().flat_map(|frame| encoder.encode(frame))).collect()
    }

    /// The frames of a body; parts of output that follow each other are one here.
    fn decode(pieces: impl Iterator<Item = Vec<u8>>) -> Result<Vec<Told>, StreamError> {
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        for piece in pieces {
            let mut rest = piece.as_slice();
            while let Some(frame) = decoder.next_frame(&mut rest)? {
                match (found.last_mut(), frame) {
                    (Some(Told::Output(last, bytes)), Frame::Output(channel, more)) if *last == channel => {
                        bytes.extend(more);
                    }
                    (_, frame) => found.push(frame.into()),
                }
            }
            assert!(rest.is_empty());
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn a_body_is_read_whatever_pieces_it_comes_in(size in 1_usize..70_000) {
            prop_assert_eq!(decode(body().chunks(size).map(<[u8]>::to_vec)).unwrap(), told());
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
    fn a_draft_becomes_the_frame_of_its_bytes_whatever_their_number() {
        let (mut drafted, mut encoded) = (Encoder::default(), Encoder::default());
        let mut draft = Draft::new(1000);
        for size in [1, 499, 500, 1000, 3, 0] {
            let output = vec![7; size];
            draft.room().extend_from_slice(&output);
            let frame = drafted.output(Channel::Stderr, &mut draft);
            assert_eq!(frame, encoded.encode(&Frame::Output(Channel::Stderr, &output)));
            // What waits takes no more than twice its size.
            assert!(frame.capacity() <= 2 * (HEAD + size), "{size}");
        }
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
