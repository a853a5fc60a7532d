//! Whole messages from a stream, within limits: frames, and HTTP messages as the original's pairing sends them.
//!
//! **Invariant:** a wait for a message may be given up at any moment and taken up again later. What has arrived stays
//! in the buffer, and the next message begins where the last one ended.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::wire::frame::{self, PREFIX};
use crate::wire::limits::REQUEST_HEAD;

/// Most lines of an HTTP head.
const HEAD_LINES: usize = 100;

/// A message that did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The peer closed between two messages.
    #[error("the connection was closed")]
    Closed,
    /// The peer closed within a message, or the connection broke.
    #[error("the connection was lost")]
    Lost(#[from] io::Error),
    /// It is larger than the limit.
    #[error("request too large")]
    TooLarge,
    /// The head of an HTTP message is too long, or says no length.
    #[error("invalid request")]
    Malformed,
}

/// What a buffer holds.
enum Found {
    /// One message, and how many bytes of the buffer it took.
    Whole(usize, Vec<u8>),
    /// The beginning of one.
    Part,
}

/// A stream with what has arrived and not been asked for yet.
#[derive(Debug)]
pub struct Exchange<S> {
    stream: S,
    taken: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// Takes over a stream.
    #[must_use]
    pub const fn new(stream: S) -> Self {
        Self { stream, taken: Vec::new() }
    }

    /// The stream itself.
    #[must_use]
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// The content of the next frame, of at most `limit` bytes.
    pub async fn frame(&mut self, limit: usize) -> Result<Vec<u8>, ExchangeError> {
        self.next(|bytes| whole_frame(bytes, limit)).await
    }

    /// The body of the next HTTP message, of at most `limit` bytes. Its first line says nothing that matters, and of its
    /// header only `Content-Length` counts: the first one, in any case of letters.
    pub async fn http_body(&mut self, limit: usize) -> Result<Vec<u8>, ExchangeError> {
        self.next(|bytes| whole_http(bytes, limit)).await
    }

    /// Sends bytes that are a message already.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Returns when the peer is gone. What it still says is of no interest.
    pub async fn gone(&mut self) {
        let mut waste = [0; 1024];
        while self.stream.read(&mut waste).await.is_ok_and(|count| count > 0) {}
    }

    /// Says goodbye. A peer that is gone already does not mind.
    pub async fn close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    async fn next(&mut self, parse: impl Fn(&[u8]) -> Result<Found, ExchangeError>) -> Result<Vec<u8>, ExchangeError> {
        loop {
            if let Found::Whole(size, message) = parse(&self.taken)? {
                self.taken.drain(..size);
                return Ok(message);
            }
            match self.stream.read_buf(&mut self.taken).await {
                Ok(0) if self.taken.is_empty() => return Err(ExchangeError::Closed),
                Ok(0) => return Err(ExchangeError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                // A peer that closes TCP without a TLS goodbye: whether that is a truncation, the message says itself.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.taken.is_empty() => {
                    return Err(ExchangeError::Closed);
                }
                Err(error) => return Err(ExchangeError::Lost(error)),
            }
        }
    }
}

fn whole_frame(bytes: &[u8], limit: usize) -> Result<Found, ExchangeError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else { return Ok(Found::Part) };
    let size = frame::announced(*prefix, limit).map_err(|_| ExchangeError::TooLarge)?;
    Ok(rest.get(..size).map_or(Found::Part, |body| Found::Whole(PREFIX + size, body.to_vec())))
}

fn whole_http(bytes: &[u8], limit: usize) -> Result<Found, ExchangeError> {
    let Some(head) = head_size(bytes)? else { return Ok(Found::Part) };
    let (head, rest) = bytes.split_at(head);
    let size = content_length(head).ok_or(ExchangeError::Malformed)?;
    if size > limit {
        return Err(ExchangeError::TooLarge);
    }
    Ok(rest.get(..size).map_or(Found::Part, |body| Found::Whole(head.len() + size, body.to_vec())))
}

/// Bytes up to and with the empty line, where it has arrived.
fn head_size(bytes: &[u8]) -> Result<Option<usize>, ExchangeError> {
    let mut size = 0;
    for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if number >= HEAD_LINES || size + line.len() > REQUEST_HEAD {
            return Err(ExchangeError::Malformed);
        }
        size += line.len();
        if matches!(line, b"\n" | b"\r\n") {
            return Ok(Some(size));
        }
    }
    Ok(None)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"))?.1.trim();
    // `parse` alone would take a sign.
    if value.bytes().all(|byte| byte.is_ascii_digit()) { value.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fed(bytes: &[u8]) -> Exchange<tokio::io::DuplexStream> {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(bytes).await.unwrap();
        Exchange::new(far)
    }

    #[tokio::test]
    async fn two_http_messages_follow_each_other_on_one_connection() {
        let text = b"HTTP/1.0 200 OK\r\ncontent-LENGTH: 2\r\n\r\nabHTTP/1.0 200 OK\nContent-Length: 3\n\ncde";
        let mut exchange = fed(text).await;
        assert_eq!(exchange.http_body(100).await.unwrap(), b"ab");
        assert_eq!(exchange.http_body(100).await.unwrap(), b"cde");
        assert!(matches!(exchange.http_body(100).await, Err(ExchangeError::Closed)));
    }

    #[tokio::test]
    async fn sizes_are_refused_before_they_are_read() {
        let mut exchange = fed(b"POST /pair HTTP/1.0\r\nContent-Length: 65537\r\n\r\n").await;
        assert!(matches!(exchange.http_body(65_536).await, Err(ExchangeError::TooLarge)));
        let mut exchange = fed(&[0, 1, 0, 1]).await;
        assert!(matches!(exchange.frame(65_536).await, Err(ExchangeError::TooLarge)));
    }

    #[tokio::test]
    async fn endless_heads_and_heads_without_a_length_are_refused() {
        for text in [vec![b'x'; REQUEST_HEAD + 1], b"a: b\n".repeat(101), b"POST\r\n\r\n".to_vec()] {
            assert!(matches!(fed(&text).await.http_body(100).await, Err(ExchangeError::Malformed)));
        }
        let mut signed = fed(b"POST\r\nContent-Length: +5\r\n\r\nabcde").await;
        assert!(matches!(signed.http_body(100).await, Err(ExchangeError::Malformed)));
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_loses_nothing() {
        let (mut near, far) = tokio::io::duplex(100);
        let mut exchange = Exchange::new(far);
        near.write_all(&[0, 0, 0]).await.unwrap();
        for _ in 0..3 {
            let wait = tokio::time::timeout(std::time::Duration::from_millis(5), exchange.frame(100));
            assert!(wait.await.is_err());
        }
        near.write_all(&[2, b'o', b'k', 9]).await.unwrap();
        assert_eq!(exchange.frame(100).await.unwrap(), b"ok");
        drop(near);
        assert!(matches!(exchange.frame(100).await, Err(ExchangeError::Lost(_))));
    }
}
