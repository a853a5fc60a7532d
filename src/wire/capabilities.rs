//! `GET /capabilities`: what an agent would run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

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
    /// The file's SHA-256 now, in hex; absent where the agent may not read it, or where it is very large.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// What the sidecar beside it says, as it stands there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schema: Option<Verbatim>,
    /// Which sidecar that is: its own version, or `sha256:` and the beginning of its digest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schema_version: Option<String>,
}

/// A JSON object as it was written: with the spelling of its numbers, which no reader has in 64 bits.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verbatim(Box<RawValue>);

impl Verbatim {
    /// A text as it is.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn new(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Verbatim {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Verbatim {}
