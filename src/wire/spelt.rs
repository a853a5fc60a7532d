//! Bytes as they stand in JSON, a piece at a time: what a script has printed need not be in memory as a whole, let alone a
//! second time as text.
//!
//! **Invariant:** the pieces together are what [`super::run::Output::of`] and `serde_json` make of the whole.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::stream::whole_characters;

/// What stands in place of bytes that are no text.
const REPLACED: &str = "\u{FFFD}";

/// The inside of a JSON string (RFC 8259 7): text, in which what is not UTF-8 is replaced by U+FFFD.
#[derive(Debug, Default)]
pub struct Text {
    /// The beginning of a character, at most three bytes.
    begun: Vec<u8>,
    replaced: bool,
}

impl Text {
    /// Appends the next bytes to `out`: at most six bytes for one, and what was held back.
    pub fn add(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut joined = std::mem::take(&mut self.begun);
        let bytes = if joined.is_empty() {
            bytes
        } else {
            joined.extend_from_slice(bytes);
            &joined
        };
        let (whole, begun) = bytes.split_at(whole_characters(bytes));
        self.spell(whole, out);
        self.begun = begun.to_vec();
    }

    /// Nothing follows.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        let begun = std::mem::take(&mut self.begun);
        self.spell(&begun, out);
    }

    /// Whether everything so far was text.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        !self.replaced
    }

    fn spell(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for chunk in bytes.utf8_chunks() {
            escape(chunk.valid().as_bytes(), out);
            if !chunk.invalid().is_empty() {
                self.replaced = true;
                out.extend_from_slice(REPLACED.as_bytes());
            }
        }
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    for run in text.split_inclusive(|byte| is_special(*byte)) {
        match run.split_last() {
            Some((last, plain)) if is_special(*last) => {
                out.extend_from_slice(plain);
                escape_one(*last, out);
            }
            _ => out.extend_from_slice(run),
        }
    }
}

const fn is_special(byte: u8) -> bool {
    matches!(byte, 0..0x20 | b'"' | b'\\')
}

fn escape_one(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => return out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Base64 (RFC 4648 4), with padding.
#[derive(Debug, Default)]
pub struct Exact {
    /// What is no group of three yet.
    begun: Vec<u8>,
}

impl Exact {
    /// Appends the next bytes to `out`.
    pub fn add(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.begun.extend_from_slice(bytes);
        let later = self.begun.split_off(self.begun.len() / 3 * 3);
        let now = std::mem::replace(&mut self.begun, later);
        out.extend_from_slice(STANDARD.encode(now).as_bytes());
    }

    /// Nothing follows.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(STANDARD.encode(std::mem::take(&mut self.begun)).as_bytes());
    }

    /// How many bytes so many become.
    #[must_use]
    pub const fn length(bytes: u64) -> u64 {
        bytes.div_ceil(3).saturating_mul(4)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::run::Output;

    fn spelt(pieces: &[&[u8]]) -> (String, bool) {
        let (mut text, mut out) = (Text::default(), b"\"".to_vec());
        for piece in pieces {
            text.add(piece, &mut out);
        }
        text.end(&mut out);
        out.push(b'"');
        (String::from_utf8(out).unwrap(), text.is_exact())
    }

    #[test]
    fn every_byte_is_spelt_as_by_everybody_else() {
        let all: Vec<u8> = (0..=255).collect();
        let expected = serde_json::to_string(&Output::of(all.clone(), false).text).unwrap();
        assert_eq!(spelt(&[&all]), (expected, false));
        assert_eq!(spelt(&["aé€😀\"\\\n\u{1}".as_bytes()]), ("\"aé€😀\\\"\\\\\\n\\u0001\"".to_owned(), true));
    }

    proptest! {
        #[test]
        fn wherever_bytes_are_parted_their_text_is_that_of_the_whole(
            pieces in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xf0), Just(0x90), Just(b'a')], 0..9),
                0..6,
            )
        ) {
            let whole = Output::of(pieces.concat(), false);
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(spelt(&pieces), (serde_json::to_string(&whole.text).unwrap(), whole.base64.is_none()));
            let (mut exact, mut out) = (Exact::default(), Vec::new());
            for piece in &pieces {
                exact.add(piece, &mut out);
            }
            exact.end(&mut out);
            let bytes = pieces.concat();
            prop_assert_eq!(out.len() as u64, Exact::length(bytes.len() as u64));
            prop_assert_eq!(out, STANDARD.encode(bytes).into_bytes());
        }
    }
}
