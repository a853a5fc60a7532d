//! HTTP answers: JSON with a length, nothing else.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

/// What every endpoint returns.
pub type Answer = Response<Full<Bytes>>;

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    // Our own types always have a JSON form; an empty object is better than a dead connection if one day one has not.
    let text = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `{"error": text}`.
#[must_use]
pub fn error(status: StatusCode, text: &str) -> Answer {
    json(status, &serde_json::json!({ "error": text }))
}
