//! A script's output, collected for a buffered reply: both streams at once, each cut at a limit.
//!
//! What lies beyond the limit is read and thrown away, so that a script that prints too much still ends. When the
//! script has ended, what is left in the pipe is taken and nothing is waited for: a background process that holds the
//! pipe open delays no reply.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::unix::pipe::Receiver;

use crate::sys::pipe;
use crate::wire::run::Output;

/// Bytes taken from a pipe at a time.
const CHUNK: usize = 64 * 1024;
/// Most chunks taken after the script's end. A pipe holds at most 1 MiB (pipe(7), `pipe-max-size`); more can only come
/// from a process that still prints.
const LEFTOVER_CHUNKS: usize = 32;

/// One stream being collected.
#[derive(Clone, Debug)]
pub struct Collector {
    kept: Arc<Mutex<Kept>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    truncated: bool,
}

impl Collector {
    /// A collector that keeps the first `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { kept: Arc::default(), limit }
    }

    /// Reads to the end of the stream.
    pub async fn follow(&self, pipe: &Receiver) {
        let mut chunk = vec![0; CHUNK];
        while pipe.readable().await.is_ok() {
            match pipe.try_read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => self.keep(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Takes what is in the pipe now. It asks the kernel and not the runtime, which may have seen the script's end
    /// before it has looked at its pipes again.
    pub fn drain(&self, pipe: &Receiver) {
        let mut chunk = vec![0; CHUNK];
        for _ in 0..LEFTOVER_CHUNKS {
            let Ok(count @ 1..) = pipe::read(pipe, &mut chunk) else { return };
            self.keep(chunk.get(..count).unwrap_or_default());
        }
    }

    fn keep(&self, read: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.limit.saturating_sub(kept.bytes.len());
        kept.bytes.extend_from_slice(read.get(..room).unwrap_or(read));
        kept.truncated |= read.len() > room;
    }

    /// What was collected.
    #[must_use]
    pub fn finish(self) -> Output {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        text(kept.bytes, kept.truncated)
    }
}

/// Bytes as text, and as base64 beside it where the text had to replace some.
fn text(bytes: Vec<u8>, truncated: bool) -> Output {
    match String::from_utf8(bytes) {
        Ok(text) => Output { text, base64: None, truncated },
        Err(error) => {
            let bytes = error.into_bytes();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Output { text, base64: Some(STANDARD.encode(&bytes)), truncated }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pipe() -> (Receiver, std::io::PipeWriter) {
        let (reader, writer) = std::io::pipe().unwrap();
        (Receiver::from_owned_fd(reader.into()).unwrap(), writer)
    }

    #[tokio::test]
    async fn output_beyond_the_limit_is_read_and_marked() {
        let (pipe, mut writer) = pipe();
        let writing = std::thread::spawn(move || writer.write_all(&vec![b'x'; 1 << 20]).unwrap());
        let collector = Collector::new(1000);
        collector.follow(&pipe).await;
        writing.join().unwrap();
        let output = collector.finish();
        assert_eq!((output.text.len(), output.truncated), (1000, true));
    }

    #[tokio::test]
    async fn a_full_limit_is_not_marked() {
        let (pipe, mut writer) = pipe();
        writer.write_all(b"12345").unwrap();
        drop(writer);
        let collector = Collector::new(5);
        collector.follow(&pipe).await;
        assert_eq!(collector.finish(), Output { text: "12345".into(), base64: None, truncated: false });
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_kept_beside_the_text() {
        let (pipe, mut writer) = pipe();
        writer.write_all(b"a\xff\0b").unwrap();
        drop(writer);
        let collector = Collector::new(100);
        collector.follow(&pipe).await;
        let output = collector.finish();
        assert_eq!(output.text, "a\u{FFFD}\0b");
        assert_eq!(STANDARD.decode(output.base64.unwrap()).unwrap(), b"a\xff\0b");
    }

    #[tokio::test]
    async fn a_pipe_that_is_held_open_delays_nothing() {
        let (pipe, mut writer) = pipe();
        // The runtime has had no occasion to notice.
        writer.write_all(b"done").unwrap();
        let collector = Collector::new(100);
        collector.drain(&pipe);
        assert_eq!(collector.finish().text, "done");
        drop(writer);
    }
}
