//! HTTP answers: JSON with a length, or a run's output as it is printed.

use bytes::Bytes;
use http_body_util::Either;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use super::large::Large;
use super::metrics::Verdict;
use super::stream::OutputBody;
use super::unread::Whole;
use crate::wire::stream::MEDIA_TYPE;

/// What every endpoint returns.
pub type Answer = Response<Either<Whole, OutputBody>>;

/// The answer in place of one that was to come.
pub type Instead = Box<Answer>;

/// A JSON answer.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Answer {
    // Our own types always have a JSON form; an empty object is better than a dead connection if one day one has not.
    let text = serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec());
    whole(status, Whole::new(Bytes::from(text)))
}

/// A JSON answer that is made while it is sent.
pub(super) fn large(status: StatusCode, body: Large) -> Answer {
    whole(status, Whole::large(body))
}

fn whole(status: StatusCode, body: Whole) -> Answer {
    let mut answer = Response::new(Either::Left(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `{"error": text}`.
#[must_use]
pub fn error(status: StatusCode, text: &str) -> Answer {
    let mut answer = json(status, &serde_json::json!({ "error": text }));
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        // As RFC 9110 section 15.5.14 calls it, and the original.
        answer.extensions_mut().insert(ReasonPhrase::from_static(b"Content Too Large"));
    }
    answer
}

/// The same answer, with what became of its request where its status does not say that.
#[must_use]
pub fn judged(mut answer: Answer, verdict: Verdict) -> Answer {
    answer.extensions_mut().insert(verdict);
    answer
}

/// What became of the request that is answered so.
#[must_use]
pub fn verdict(answer: &Answer) -> Verdict {
    answer.extensions().get().copied().unwrap_or_else(|| Verdict::of(answer.status()))
}

/// A streamed answer.
#[must_use]
pub fn stream(body: OutputBody) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    answer
}
