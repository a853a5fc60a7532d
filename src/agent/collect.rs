//! A script's output, collected for a buffered reply: each stream cut at a limit.
//!
//! What lies beyond the limit is read and thrown away, so that a script that prints too much still ends.

use std::sync::{Mutex, PoisonError};

use super::pump::Sink;
use crate::wire::run::Output;
use crate::wire::stream::{Channel, Draft};

/// Both streams, being collected.
#[derive(Debug)]
pub struct Collector {
    stdout: Mutex<Kept>,
    stderr: Mutex<Kept>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Collector {
    /// A collector that keeps the first `limit` bytes of each stream.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { stdout: Mutex::default(), stderr: Mutex::default(), limit }
    }

    /// What was collected: standard output and standard error.
    #[must_use]
    pub fn finish(self) -> (Output, Output) {
        let output = |kept: Mutex<Kept>| {
            let Kept { bytes, truncated } = kept.into_inner().unwrap_or_else(PoisonError::into_inner);
            Output::of(bytes, truncated)
        };
        (output(self.stdout), output(self.stderr))
    }
}

impl Sink for Collector {
    async fn take(&self, channel: Channel, draft: &mut Draft) {
        let bytes = draft.output();
        let kept = match channel {
            Channel::Stdout => &self.stdout,
            Channel::Stderr => &self.stderr,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.limit.saturating_sub(kept.bytes.len());
        kept.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        kept.truncated |= bytes.len() > room;
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn draft(bytes: &[u8]) -> Draft {
        let mut draft = Draft::new(100);
        draft.room().extend_from_slice(bytes);
        draft
    }

    #[tokio::test]
    async fn each_stream_is_cut_and_marked_by_itself() {
        let collector = Collector::new(5);
        for piece in ["123", "45"] {
            collector.take(Channel::Stdout, &mut draft(piece.as_bytes())).await;
        }
        for piece in ["123", "456", "7"] {
            collector.take(Channel::Stderr, &mut draft(piece.as_bytes())).await;
        }
        let (stdout, stderr) = collector.finish();
        assert_eq!(stdout, Output { text: "12345".into(), base64: None, truncated: false });
        assert_eq!(stderr, Output { text: "12345".into(), base64: None, truncated: true });
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_kept_beside_the_text() {
        let collector = Collector::new(100);
        collector.take(Channel::Stdout, &mut draft(b"a\xff\0b")).await;
        let output = collector.finish().0;
        assert_eq!(output.text, "a\u{FFFD}\0b");
        assert_eq!(STANDARD.decode(output.base64.unwrap()).unwrap(), b"a\xff\0b");
    }
}
