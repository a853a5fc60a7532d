//! Names that become file names, registry keys or policy keys. Parsed once, at the edge; a value of one of these
//! types can be joined to a path without another look.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A text that is not a name of the kind it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

impl NameError {
    /// Cuts what is quoted back, so that a megabyte of nonsense is not repeated to a log.
    fn new(what: &'static str, text: &str, rule: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), rule }
    }
}

/// Defines a validated text type: `$test` decides, `$rule` says in words what was expected.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $test:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses a name; the error repeats the rule.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let test: fn(&str) -> bool = $test;
                if test(text) { Ok(Self(text.to_owned())) } else { Err(NameError::new($what, text, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

name_type!(
    /// A script's name on the allowlist: letters, digits, `_` and `-`, at most 255 bytes.
    ScriptName,
    "script name",
    |text| word(text, 255),
    "use letters, digits, '_' and '-', at most 255 of them"
);

name_type!(
    /// A registry key: an agent's name as the dispatcher knows it. It never starts with a dot, never holds a slash,
    /// and fits a file name with its suffix.
    AgentName,
    "agent name",
    |text| dotted(text, 240),
    "use letters, digits, '.', '-' and '_', starting with a letter or digit, at most 240 of them"
);

name_type!(
    /// A dispatcher's stable identity on its agents: the key of policy, attribution and job ownership.
    DispatcherId,
    "dispatcher id",
    |text| dotted(text, 64),
    "use letters, digits, '.', '-' and '_', starting with a letter or digit, at most 64 of them"
);

name_type!(
    /// A request id as it may become a file name. Ours are 16 lower-case hex digits; the original accepts more.
    RequestId,
    "request id",
    |text| word(text, 128),
    "use letters, digits, '_' and '-', at most 128 of them"
);

impl RequestId {
    /// A new id from 8 random bytes.
    #[must_use]
    pub fn from_random(bytes: [u8; 8]) -> Self {
        Self(format!("{:016x}", u64::from_be_bytes(bytes)))
    }
}

impl DispatcherId {
    /// Makes an id of any text, as the original does: every character outside the alphabet becomes `-`, leading
    /// non-alphanumerics are dropped, 64 remain; nothing left becomes `dispatcher`.
    #[must_use]
    pub fn sanitise(text: &str) -> Self {
        let replaced = text.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' });
        let id: String = replaced.skip_while(|c| !c.is_ascii_alphanumeric()).take(64).collect();
        if id.is_empty() { Self("dispatcher".to_owned()) } else { Self(id) }
    }
}

fn word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn dotted(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len())
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_never_a_name() {
        for text in ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "a\n", ".hidden", "-dash", "é"] {
            assert!(AgentName::parse(text).is_err(), "{text:?}");
            assert!(DispatcherId::parse(text).is_err(), "{text:?}");
        }
        for text in ["", "..", "a.b", "a/b", "a\n", "é", "a b"] {
            assert!(ScriptName::parse(text).is_err(), "{text:?}");
            assert!(RequestId::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ordinary_names_pass() {
        assert_eq!(AgentName::parse("web-01.example.org").unwrap().as_str(), "web-01.example.org");
        assert_eq!(ScriptName::parse("disk_usage-2").unwrap().as_str(), "disk_usage-2");
    }

    #[test]
    fn a_request_id_is_sixteen_hex_digits() {
        assert_eq!(RequestId::from_random([0, 0, 0, 0, 0, 0, 0, 10]).as_str(), "000000000000000a");
    }

    #[test]
    fn an_error_does_not_repeat_a_megabyte() {
        let error = AgentName::parse(&"/".repeat(1 << 20)).unwrap_err();
        assert!(error.to_string().len() < 400);
    }

    #[test]
    fn any_host_name_becomes_an_id() {
        assert_eq!(DispatcherId::sanitise("__Büro host!").as_str(), "B-ro-host-");
        assert_eq!(DispatcherId::sanitise("..").as_str(), "dispatcher");
        assert_eq!(DispatcherId::sanitise(&"x".repeat(80)).as_str().len(), 64);
    }
}
