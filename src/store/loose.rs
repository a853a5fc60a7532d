//! How loosely the original types its JSON: a text may be a number or null, a port may be a text, a flag may be anything.
//!
//! Everything that the original could read is read here, and what it would have passed over counts as absent.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::wire::pair::LookupBy;

/// A text; numbers as they are written, anything else as none.
pub(super) fn text<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    })
}

/// A port as number or text; 0 and everything else is none.
pub(super) fn port<'de, D: Deserializer<'de>>(input: D) -> Result<Option<u16>, D::Error> {
    let port = match Value::deserialize(input)? {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(port.filter(|port| *port != 0))
}

/// One of the two words.
pub(super) fn lookup<'de, D: Deserializer<'de>>(input: D) -> Result<Option<LookupBy>, D::Error> {
    Ok(Value::deserialize(input)?.as_str().and_then(LookupBy::parse))
}

/// 1 for what the original takes for true (perldata(1)): everything but null, false, zero and an empty text.
pub(super) fn flag<'de, D: Deserializer<'de>>(input: D) -> Result<u8, D::Error> {
    Ok(u8::from(match Value::deserialize(input)? {
        Value::Null => false,
        Value::Bool(flag) => flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Array(_) | Value::Object(_) => true,
    }))
}

/// An object; anything else is an empty one.
pub(super) fn tags<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(match Value::deserialize(input)? {
        Value::Object(tags) => tags.into_iter().collect(),
        _ => BTreeMap::new(),
    })
}
