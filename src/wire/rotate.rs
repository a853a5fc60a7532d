//! `POST /rotate-serial`: a dispatcher adds the serial of its next certificate to the trust map, and later removes that
//! of its last one.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits;
use super::serial::Serial;

/// Most characters of a peer's text that are quoted back.
const QUOTED: usize = 80;

/// What is to happen to a serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Trust it.
    Add,
    /// Trust it no more.
    Remove,
}

impl Action {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request as an agent read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotateRequest {
    /// What is to happen.
    pub action: Action,
    /// To which serial.
    pub serial: Serial,
    /// The serial as it was spelt, for the answer.
    pub spelt: String,
    /// Token for the hook, empty when absent. Never logged.
    pub token: String,
}

impl RotateRequest {
    /// Reads a request body.
    ///
    /// # Errors
    /// The text to answer with.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let field = |key: &str| value.get(key).filter(|value| !value.is_null());
        let spelt = match field("serial") {
            None => return Err("serial required".to_owned()),
            Some(Value::String(text)) if text.is_empty() => return Err("serial required".to_owned()),
            Some(Value::String(text)) => text.clone(),
            // A number was decimal once and nobody can tell any more.
            Some(_) => return Err("serial must be a text".to_owned()),
        };
        let action = match field("action").map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        {
            None => Action::Add,
            Some(text) => match text.as_str() {
                "add" => Action::Add,
                "remove" => Action::Remove,
                other => return Err(format!("invalid action '{}'", other.chars().take(QUOTED).collect::<String>())),
            },
        };
        let token = match field("token") {
            None => String::new(),
            Some(Value::String(text)) => within_an_environment(text)?,
            Some(_) => return Err("token must be a text".to_owned()),
        };
        let serial = Serial::parse_hex(&spelt).map_err(|error| error.to_string())?;
        Ok(Self { action, serial, spelt, token })
    }
}

/// A token as a hook can have it: its environment would end at a NUL, and its JSON would not.
fn within_an_environment(token: &str) -> Result<String, String> {
    if token.contains('\0') {
        Err("token contains a NUL byte".to_owned())
    } else if token.len() > limits::TEXT {
        Err(format!("token is longer than {} bytes", limits::TEXT))
    } else {
        Ok(token.to_owned())
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateReply {
    /// `ok`.
    pub status: String,
    /// What happened.
    pub action: Action,
    /// To which serial, as it was spelt.
    pub serial: String,
    /// The dispatcher that it is, or was, the serial of.
    pub dispatcher: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<RotateRequest, String> {
        RotateRequest::parse(body.as_bytes())
    }

    #[test]
    fn every_spelling_of_a_serial_is_one_and_add_is_the_default() {
        let request = parse(r#"{"serial":"0xDE:AD","token":"t"}"#).unwrap();
        assert_eq!((request.action, request.serial.as_str(), request.spelt.as_str()), (Action::Add, "dead", "0xDE:AD"));
        assert_eq!(parse(r#"{"serial":"10","action":"remove"}"#).unwrap().serial.as_str(), "10");
        assert_eq!(parse(r#"{"serial":"a","action":null,"token":null}"#).unwrap().token, "");
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for body in ["", "x", "[]", "{}", r#"{"serial":null}"#, r#"{"serial":""}"#] {
            assert_eq!(parse(body).unwrap_err(), "serial required", "{body}");
        }
        assert_eq!(parse(r#"{"serial":12}"#).unwrap_err(), "serial must be a text");
        assert_eq!(parse(r#"{"serial":"a","action":"drop"}"#).unwrap_err(), "invalid action 'drop'");
        assert_eq!(parse(r#"{"serial":"a","action":1}"#).unwrap_err(), "invalid action '1'");
        assert_eq!(parse(r#"{"serial":"a","token":[]}"#).unwrap_err(), "token must be a text");
        assert!(parse(r#"{"serial":"nan"}"#).unwrap_err().contains("is not a certificate serial number"));
        assert_eq!(parse(r#"{"serial":"a","token":"a\u0000b"}"#).unwrap_err(), "token contains a NUL byte");
        let long = format!(r#"{{"serial":"a","token":"{}"}}"#, "x".repeat(limits::TEXT + 1));
        assert!(parse(&long).unwrap_err().starts_with("token is longer than "));
        for strange in [r#"{"serial":"a\u0000"}"#, r#"{"serial":"a","action":"add\u0000"}"#] {
            assert!(parse(strange).is_err(), "{strange}");
        }
        let long = format!(r#"{{"serial":"a","action":"{}"}}"#, "x".repeat(100_000));
        assert!(parse(&long).unwrap_err().len() < 120);
    }
}
