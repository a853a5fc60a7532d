//! A refusal: the peer's request was understood and will not be done. It carries a stable code for programs and a
//! public text for people, and nothing that the peer should not see.

use serde::{Deserialize, Serialize};

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    code: String,
    text: String,
}

impl Refusal {
    /// A refusal with a stable code in kebab-case and a public text.
    #[must_use]
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }

    /// The stable code, for example `script-not-permitted`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The public text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}
