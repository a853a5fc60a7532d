//! One request a connection, of HTTP/1: its head, an answer, the end. Bodies mean nothing here.
//!
//! By hand, since a second copy of the server that dispatchers talk to would make the binary larger than everything else
//! about metrics.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::net::local::Local;
use crate::net::serve::part;
use crate::sys::clock;
use crate::wire::stamp;

/// Bytes of a head, and its lines.
const HEAD: usize = 16 * 1024;
const LINES: usize = 64;

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A request.
    Request {
        /// In its letters: methods are told apart by case.
        method: String,
        /// With the query.
        path: String,
    },
    /// No HTTP/1.
    Malformed,
    /// Too much of it.
    TooLarge,
}

impl Asked {
    pub(super) fn is_head(&self) -> bool {
        matches!(self, Self::Request { method, .. } if method == "HEAD")
    }
}

/// Reads a head. None where the client went away before its end.
pub(super) async fn head(stream: &mut Box<dyn Local>) -> Option<Asked> {
    let mut taken = Vec::new();
    loop {
        if let Some(asked) = parse(&taken) {
            return Some(asked);
        }
        match stream.read_buf(&mut taken).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// What these bytes say, once they are enough.
fn parse(bytes: &[u8]) -> Option<Asked> {
    let mut lines = [httparse::EMPTY_HEADER; LINES];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= HEAD => {
            let (method, path) = (request.method?.to_owned(), request.path?.to_owned());
            Some(Asked::Request { method, path })
        }
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => None,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Some(Asked::TooLarge),
        Err(_) => Some(Asked::Malformed),
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Number and words.
    pub(super) status: &'static str,
    /// The text's media type.
    pub(super) kind: &'static str,
    /// The methods that would do.
    pub(super) allow: Option<&'static str>,
    pub(super) text: String,
}

impl Answer {
    /// One for people.
    pub(super) fn plain(status: &'static str, text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", allow: None, text: text.to_owned() }
    }

    fn head(&self) -> String {
        let date = stamp::http(clock::unix_now());
        let allow = self.allow.map_or_else(String::new, |allow| format!("Allow: {allow}\r\n"));
        format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Date: {date}\r\nConnection: close\r\n\r\n",
            self.status,
            self.kind,
            self.text.len()
        )
    }
}

/// Answers, and parts. A question for the head alone gets that. A client that is gone does not mind.
pub(super) async fn tell(stream: &mut Box<dyn Local>, answer: &Answer, head_alone: bool) {
    let text = if head_alone { "" } else { answer.text.as_str() };
    let whole = answer.head() + text;
    if stream.write_all(whole.as_bytes()).await.is_ok() {
        part(stream).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> Asked {
        Asked::Request { method: method.to_owned(), path: path.to_owned() }
    }

    #[test]
    fn a_head_is_waited_for_and_nothing_else_is_taken_for_one() {
        let whole = "GET /metrics?x HTTP/1.1\r\nHost: x\r\n\r\n";
        assert_eq!(parse(whole.as_bytes()), Some(request("GET", "/metrics?x")));
        assert_eq!(parse(b"HEAD / HTTP/1.0\n\nbody"), Some(request("HEAD", "/")));
        for end in 0..whole.len() {
            assert_eq!(parse(&whole.as_bytes()[..end]), None, "{end}");
        }
        for text in
            [&b"\0\x01"[..], b"GET\r\n\r\n", b"GET / HTTP/3\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01"]
        {
            assert_eq!(parse(text), Some(Asked::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_head_beyond_its_limits_is_too_large() {
        let head = |lines: usize, size: usize| {
            let line = format!("X: {}\r\n", "x".repeat(size));
            parse(format!("GET / HTTP/1.1\r\n{}\r\n", line.repeat(lines)).as_bytes())
        };
        assert_eq!(head(LINES, 10), Some(request("GET", "/")));
        assert_eq!((head(LINES + 1, 10), head(1, HEAD)), (Some(Asked::TooLarge), Some(Asked::TooLarge)));
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(HEAD));
        assert_eq!(parse(endless.as_bytes()), Some(Asked::TooLarge));
    }

    #[test]
    fn an_answer_says_its_length_and_that_it_is_the_last() {
        let head = Answer { allow: Some("GET"), ..Answer::plain("405 Method Not Allowed", "use GET\n") }.head();
        let lines: Vec<&str> = head.split("\r\n").collect();
        assert_eq!(lines[0], "HTTP/1.1 405 Method Not Allowed");
        for line in ["Content-Length: 8", "Allow: GET", "Connection: close"] {
            assert!(lines.contains(&line), "{head}");
        }
        assert!(lines.iter().any(|line| line.starts_with("Date: ") && line.ends_with(" GMT")), "{head}");
        assert!(head.ends_with("\r\n\r\n"));
    }
}
