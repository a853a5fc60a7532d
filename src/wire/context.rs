//! The request context: one JSON object on the script's stdin, no newline, then end of file.

use serde::{Deserialize, Serialize};

/// What a script may know about the request that started it. Field order is the documented one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunContext {
    /// Script name.
    pub script: String,
    /// Arguments, as in the argument vector.
    pub args: Vec<String>,
    /// Request id.
    pub reqid: String,
    /// Address of the dispatcher's connection.
    pub peer_ip: String,
    /// User name as the dispatcher's caller gave it: a claim, not an identity.
    pub username: String,
    /// Token as the dispatcher's caller gave it.
    pub token: String,
    /// The dispatcher's stable id.
    pub dispatcher: String,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub timestamp: String,
}
