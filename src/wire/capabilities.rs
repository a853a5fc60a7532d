//! `GET /capabilities`: what an agent would run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `ok`.
    pub status: String,
    /// The agent's own name for its host.
    pub host: String,
    /// The agent's version.
    pub version: String,
    /// The allowlist, sorted by name.
    pub scripts: Vec<ScriptEntry>,
    /// Free key-value pairs of the agent's configuration.
    pub tags: BTreeMap<String, String>,
}

/// One allowlisted script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptEntry {
    /// Its name.
    pub name: String,
    /// Its configured path.
    pub path: String,
    /// Whether the agent's user may execute the file.
    pub executable: bool,
    /// Its profile.
    pub profile: String,
}
