//! The answer to a peer whose first head cannot be read, or who goes without one: in JSON, like every other.
//!
//! hyper has an answer of its own to a head that it does not take, without a body. So nothing is written to a connection
//! before the service has a request ([`Shared::speak`]), and what hyper would have said is said here. On a connection
//! that was used before, hyper's own answer stands: what it has still to write there cannot be told from it.

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::parting::part;
use super::{FAREWELL, Unreadable};
use crate::net::shared::Shared;
use crate::sys::clock;
use crate::wire::{limits, stamp};

/// Ends a connection that hyper is through with. `told` says that the peer was told to go.
pub(super) async fn end<S>(ended: hyper::Result<()>, stream: &Shared<S>, told: bool) -> Option<Unreadable>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if !stream.is_silent() {
        let error = ended.err().filter(hyper::Error::is_parse)?;
        part(stream).await;
        return Some(Unreadable(error.to_string()));
    }
    let answer = if told { None } else { answer(&ended, stream.taken()) };
    stream.speak();
    let Some((status, text)) = answer else {
        drop(timeout(FAREWELL, (&mut &*stream).shutdown()).await);
        return None;
    };
    let head = whole(status, text);
    if timeout(FAREWELL, (&mut &*stream).write_all(head.as_bytes())).await.is_ok_and(|written| written.is_ok()) {
        part(stream).await;
    }
    // Who has said nothing has nothing that could be read.
    ended.err().map(|error| Unreadable(error.to_string()))
}

/// What there is to say to one of whom so many bytes came.
fn answer(ended: &hyper::Result<()>, taken: usize) -> Option<(StatusCode, &'static str)> {
    Some(match ended {
        Ok(()) => (StatusCode::BAD_REQUEST, "empty request"),
        Err(error) if error.is_parse_too_large() => {
            // Beyond the number that hyper takes, it does not wait for the end.
            let many = taken < limits::REQUEST_HEAD;
            let text = if many { "too many headers" } else { "request head too large" };
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text)
        }
        Err(error) if error.is_parse() => (StatusCode::BAD_REQUEST, "invalid request"),
        Err(error) if error.is_incomplete_message() => (StatusCode::BAD_REQUEST, "incomplete request"),
        Err(_) => return None,
    })
}

fn whole(status: StatusCode, text: &str) -> String {
    let body = serde_json::json!({ "error": text }).to_string();
    format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\ndate: {}\r\n\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len(),
        stamp::http(clock::unix_now()),
    )
}
