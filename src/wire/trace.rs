//! The caller's place in a distributed trace: the `traceparent` of W3C Trace Context, version 00
//! (<https://www.w3.org/TR/trace-context/>, section 3.2).
//!
//! **Invariant:** a value of [`TraceParent`] has the fixed form and nothing else, so it can stand in an environment, a
//! log and a header without another look.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `00-<trace id>-<parent id>-<flags>`, 55 characters of lower-case hex and dashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TraceParent(String);

/// A text that is no `traceparent` of version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent of version 00: 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, lower case")]
pub struct TraceError;

impl TraceParent {
    /// The request header, and in upper case the environment variable.
    pub const HEADER: &'static str = "traceparent";
    /// What a script finds it under.
    pub const VARIABLE: &'static str = "TRACEPARENT";

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let parts: Vec<&str> = text.split('-').collect();
        let ["00", trace, parent, flags] = parts.as_slice() else { return Err(TraceError) };
        // An id of zeros is invalid by definition.
        let id = |text: &str, digits: usize| is_hex(text, digits) && text.bytes().any(|b| b != b'0');
        let valid = id(trace, 32) && id(parent, 16) && is_hex(flags, 2);
        if valid { Ok(Self(text.to_owned())) } else { Err(TraceError) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl TryFrom<String> for TraceParent {
    type Error = TraceError;

    fn try_from(text: String) -> Result<Self, TraceError> {
        Self::parse(&text)
    }
}

impl From<TraceParent> for String {
    fn from(trace: TraceParent) -> Self {
        trace.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_form_of_version_00_is_taken_and_nothing_else() {
        assert_eq!(TraceParent::parse(GOOD).unwrap().as_str(), GOOD);
        for bad in [
            String::new(),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "01", 1),
            GOOD.replacen("00", "ff", 1),
            format!("{GOOD}-extra"),
            format!("{GOOD}\n"),
            format!(" {GOOD}"),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("-01", "-1"),
            GOOD.replace("0af", "\u{ff10}af"),
            GOOD.replace('-', "_"),
        ] {
            assert!(TraceParent::parse(&bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_55_harmless_characters(text in "[0-9a-fA-F-]{50,60}|.{0,80}") {
            if let Ok(trace) = TraceParent::parse(&text) {
                prop_assert_eq!(trace.as_str().len(), 55);
                prop_assert!(trace.as_str().bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'));
            }
        }
    }
}
