//! `POST /ping`: is the agent there, what does it run, until when is its certificate good.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::spelling;

/// The body that our dispatcher sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PingCall {
    /// Request id.
    pub reqid: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingReply {
    /// `ok`.
    pub status: String,
    /// The agent's own name for its host.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// End of the agent certificate's validity in OpenSSL's form, or `unknown`.
    pub expiry: String,
    /// A renewed certificate waits for the agent to take it up.
    pub staged: bool,
    /// How the session of the connection that the call came on began. An agent of the original does not say.
    #[serde(default)]
    pub session: Session,
    /// Echo of the request's id, with its JSON type.
    pub reqid: Value,
}

/// How a TLS session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Session {
    /// Both ends have proven that they hold their keys.
    #[default]
    Full,
    /// It goes on from one that was.
    Resumed,
}

/// The `reqid` of a ping body; a body that is missing or no JSON counts as an empty object.
#[must_use]
pub fn reqid(body: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let reqid = value.get("reqid").filter(|id| !id.is_null()).cloned();
    reqid.map_or_else(|| Value::String(String::new()), |id| spelling::exact(body, "reqid", id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_body_yields_an_id() {
        assert_eq!(reqid(br#"{"reqid":"a"}"#), "a");
        assert_eq!(reqid(br#"{"reqid":5}"#), 5);
        for body in ["", "x", "[]", "{}", r#"{"reqid":null}"#] {
            assert_eq!(reqid(body.as_bytes()), "", "{body}");
        }
    }
}
