//! `POST /renew` and `POST /renew-complete`: a certificate request, and the certificate it brought.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer to `/renew`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewReply {
    /// `ok`.
    pub status: String,
    /// The certificate request as PEM text.
    pub csr: String,
    /// Echo of the request's id, with its JSON type.
    pub reqid: Value,
}

/// The answer to `/renew-complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedReply {
    /// `ok`.
    pub status: String,
    /// The certificate waits for the agent to take it up.
    pub staged: bool,
    /// Echo of the request's id, with its JSON type.
    pub reqid: Value,
}

/// The answer to either that brought nothing. Its HTTP status is 200 all the same, as the original's peers expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedReply {
    /// `error`.
    pub status: String,
    /// Why.
    pub error: String,
    /// Echo of the request's id, with its JSON type.
    pub reqid: Value,
}

impl RenewReply {
    /// A request that was made.
    #[must_use]
    pub fn new(csr: String, reqid: Value) -> Self {
        Self { status: "ok".to_owned(), csr, reqid }
    }
}

impl StagedReply {
    /// A certificate that was staged.
    #[must_use]
    pub fn new(reqid: Value) -> Self {
        Self { status: "ok".to_owned(), staged: true, reqid }
    }
}

impl FailedReply {
    /// A failure.
    #[must_use]
    pub fn new(error: String, reqid: Value) -> Self {
        Self { status: "error".to_owned(), error, reqid }
    }
}

/// The `cert` of a `/renew-complete` body; nothing where it is missing, empty or no text.
#[must_use]
pub fn certificate(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("cert").and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_text_or_there_is_none() {
        assert_eq!(certificate(br#"{"cert":"x","ca":"y"}"#).as_deref(), Some("x"));
        for body in ["", "x", "[]", "{}", r#"{"cert":null}"#, r#"{"cert":""}"#, r#"{"cert":["x"]}"#, r#"{"cert":1}"#] {
            assert_eq!(certificate(body.as_bytes()), None, "{body}");
        }
    }
}
