//! Answers that are too large for memory: JSON that is made of bytes on file, a piece at a time, while it is sent.
//!
//! What is made of a file is made by a thread that may wait for the disk, so that no answer, however large, holds up
//! another's.

use std::collections::VecDeque;

use bytes::Bytes;

use super::excerpt::Excerpt;
use crate::store::StoreError;
use crate::wire::spelt::{Exact, Text};

/// So many bytes of a source are made into JSON at a time.
const STEP: usize = 8 * 1024;
/// So much of an answer is made at a time.
pub(super) const MADE: usize = 64 * 1024;

/// A part of an answer.
#[derive(Clone, Debug)]
enum Part {
    Plain(Bytes),
    /// As it is.
    Raw(Excerpt),
    Text(Excerpt),
    Exact(Excerpt),
}

/// An answer whose length is known, and of which the beginning is made.
#[derive(Debug)]
pub(super) struct Large {
    length: u64,
    made: Vec<u8>,
    parts: Parts,
}

impl Large {
    /// What is JSON already.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn raw(excerpt: Excerpt) -> Result<Self, StoreError> {
        Self::begin(excerpt.length(), [Part::Raw(excerpt)].into())
    }

    fn begin(length: u64, rest: VecDeque<Part>) -> Result<Self, StoreError> {
        let (mut parts, mut made) = (Parts::of(rest), Vec::new());
        parts.fill(&mut made, MADE)?;
        Ok(Self { length, made, parts })
    }

    /// The JSON object of these `fields`, of which there is at least one, with outputs before them under their names. All
    /// of them are read, to know their length.
    ///
    /// # Errors
    /// They cannot be.
    pub(super) fn object(outputs: Vec<(&str, Excerpt)>, fields: &[u8]) -> Result<Self, StoreError> {
        let (mut parts, mut length) = (VecDeque::new(), 0);
        let mut begin = "{";
        for (name, excerpt) in outputs {
            let mut add = |plain: String, part: Part, long: u64| {
                length += size(plain.len()) + long + 1;
                parts.extend([Part::Plain(plain.into()), part, Part::Plain(Bytes::from_static(b"\""))]);
            };
            let (text, is_exact) = measure(&excerpt)?;
            add(format!("{begin}\"{name}\":\""), Part::Text(excerpt.clone()), text);
            if !is_exact {
                let exact = Exact::length(excerpt.length());
                add(format!(",\"{name}_base64\":\""), Part::Exact(excerpt), exact);
            }
            begin = ",";
        }
        let fields = fields.strip_prefix(b"{").unwrap_or(fields);
        let rest = Bytes::from([begin.as_bytes(), fields].concat());
        length += size(rest.len());
        parts.push_back(Part::Plain(rest));
        Self::begin(length, parts)
    }

    /// Its length, its beginning, and what makes the rest.
    pub(super) fn into_parts(self) -> (u64, Vec<u8>, Parts) {
        (self.length, self.made, self.parts)
    }
}

/// How long an excerpt is as text in JSON, and whether that is all of it.
fn measure(excerpt: &Excerpt) -> Result<(u64, bool), StoreError> {
    let (mut text, mut piece, mut at, mut length) = (Text::default(), Vec::new(), 0, 0);
    while at < excerpt.length() {
        let bytes = excerpt.read(at, STEP)?;
        if bytes.is_empty() {
            break;
        }
        at += size(bytes.len());
        text.add(&bytes, &mut piece);
        length += size(piece.len());
        piece.clear();
    }
    text.end(&mut piece);
    Ok((length + size(piece.len()), text.is_exact()))
}

/// What is left to be made.
#[derive(Debug)]
pub(super) struct Parts {
    rest: VecDeque<Part>,
    /// How much of the first was read.
    at: u64,
    text: Text,
    exact: Exact,
}

impl Parts {
    fn of(rest: VecDeque<Part>) -> Self {
        Self { rest, at: 0, text: Text::default(), exact: Exact::default() }
    }

    /// Appends what comes next until there are `most` bytes, or a few more; fewer at the end, or where a source has become
    /// shorter than it was.
    ///
    /// # Errors
    /// A source cannot be read.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, most: usize) -> Result<(), StoreError> {
        while out.len() < most {
            let Some(part) = self.rest.front() else { return Ok(()) };
            let (Part::Raw(excerpt) | Part::Text(excerpt) | Part::Exact(excerpt)) = part else {
                if let Some(Part::Plain(bytes)) = self.rest.pop_front() {
                    out.extend_from_slice(&bytes);
                }
                continue;
            };
            let bytes = excerpt.read(self.at, STEP)?;
            self.at += size(bytes.len());
            match part {
                Part::Text(_) => self.text.add(&bytes, out),
                Part::Exact(_) => self.exact.add(&bytes, out),
                Part::Raw(_) | Part::Plain(_) => out.extend_from_slice(&bytes),
            }
            if bytes.is_empty() {
                self.text.end(out);
                self.exact.end(out);
                self.at = 0;
                self.rest.pop_front();
            }
        }
        Ok(())
    }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use std::sync::Arc;

    use super::*;
    use crate::agent::excerpt::Source;
    use crate::wire::run::Output;

    fn excerpt(bytes: &[u8]) -> Excerpt {
        Excerpt::of(Arc::new(Source::Recorded([b"before", bytes, b"behind"].concat())), 6, size(bytes.len()))
    }

    fn made(large: Large) -> Vec<u8> {
        let (length, mut all, mut parts) = large.into_parts();
        assert!(all.len() < MADE + 6 * STEP);
        loop {
            let mut piece = Vec::new();
            parts.fill(&mut piece, 1000).unwrap();
            assert!(piece.len() < 1000 + 6 * STEP);
            if piece.is_empty() {
                break;
            }
            all.extend(piece);
        }
        assert_eq!(size(all.len()), length);
        all
    }

    #[test]
    fn an_answer_that_is_made_in_pieces_says_what_one_made_as_a_whole_would() {
        let text = "é\"\n".repeat(20_000).into_bytes();
        let odd = [&text[..], b"\xff", &text].concat();
        for (stdout, stderr) in [(&text[..], &b""[..]), (&odd, &text), (b"\xc3", &odd[1..])] {
            let large = Large::object(vec![("stdout", excerpt(stdout)), ("stderr", excerpt(stderr))], b"{\"exit\":7}");
            let value: Value = serde_json::from_slice(&made(large.unwrap())).unwrap();
            assert_eq!(value["exit"], 7);
            for (name, bytes) in [("stdout", stdout), ("stderr", stderr)] {
                let Output { text, base64, .. } = Output::of(bytes.to_vec(), false);
                assert_eq!(value[name], text);
                assert_eq!(value.get(format!("{name}_base64")).and_then(Value::as_str), base64.as_deref());
            }
        }
        assert_eq!(made(Large::object(Vec::new(), b"{\"a\":1}").unwrap()), b"{\"a\":1}");
        assert_eq!(made(Large::raw(excerpt(&odd)).unwrap()), odd);
    }

    #[test]
    fn a_character_that_was_cut_is_left_out() {
        for (bytes, whole) in [(&b""[..], 0), (b"a\xe2\x82", 1), (b"\xe2\x82\xac", 3), (b"\xff", 1), (b"aaaa\xf0", 4)] {
            assert_eq!(excerpt(bytes).whole_characters().unwrap().length(), whole, "{bytes:?}");
        }
    }
}
