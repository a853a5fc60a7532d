//! One host's result: the agent's own JSON, completed. Keys that we do not know pass through unchanged.

use std::time::Duration;

use serde_json::{Map, Value};

use super::failure::CallError;
use crate::wire::name::AgentName;
use crate::wire::outcome::OUTCOME_UNKNOWN;

/// One host's result, as it is printed with `--json`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostResult {
    /// The registered name that was called.
    pub host: AgentName,
    /// All fields, `host` among them.
    pub fields: Map<String, Value>,
}

impl HostResult {
    /// Completes an agent's answer: `host` becomes the registered name, and the agent's own idea of its name stays
    /// as `reported_hostname` where it differs.
    #[must_use]
    pub fn answered(host: &AgentName, mut fields: Map<String, Value>) -> Self {
        let reported = match fields.insert("host".to_owned(), Value::from(host.as_str())) {
            Some(Value::String(name)) if !name.is_empty() && name != host.as_str() => Some(name),
            _ => None,
        };
        fields.shift_remove("reported_hostname");
        if let Some(name) = reported {
            fields.insert("reported_hostname".to_owned(), Value::from(name));
        }
        Self { host: host.clone(), fields }
    }

    /// A failed call.
    #[must_use]
    pub fn failed(
        host: &AgentName,
        error: &CallError,
        fields: impl IntoIterator<Item = (&'static str, Value)>,
    ) -> Self {
        let mut map: Map<String, Value> = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        map.insert("host".to_owned(), Value::from(host.as_str()));
        map.insert("error".to_owned(), Value::from(error.to_string()));
        map.extend(error.reason().map(|reason| ("reason".to_owned(), Value::from(reason))));
        Self { host: host.clone(), fields: map }
    }

    /// Sets a field unless the agent gave it.
    pub fn default_field(&mut self, key: &str, value: impl Into<Value>) {
        self.fields.entry(key).or_insert_with(|| value.into());
    }

    /// Marks the result of a script that may have run, to whichever end: nobody told it.
    pub fn mark_unknown(&mut self) {
        self.fields.insert("unknown".to_owned(), true.into());
        self.fields.insert("reason".to_owned(), OUTCOME_UNKNOWN.into());
    }

    /// A text field; empty where it is missing or no text.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// The script's exit status; a missing one counts as -1.
    #[must_use]
    pub fn exit(&self) -> i64 {
        self.fields.get("exit").and_then(Value::as_i64).unwrap_or(-1)
    }
}

/// A round trip as text, `31ms`.
#[must_use]
pub fn rtt(elapsed: Duration) -> String {
    format!("{}ms", (elapsed.as_micros() + 500) / 1000)
}

/// Reads an agent's answer, which must be a JSON object.
pub fn object(body: &[u8], otherwise: &'static str) -> Result<Map<String, Value>, CallError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(CallError::Malformed(otherwise)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registered_name_wins_and_a_differing_report_is_kept() {
        let host = AgentName::parse("web").unwrap();
        let fields = object(br#"{"host":"web.example.org","x":1}"#, "").unwrap();
        let result = HostResult::answered(&host, fields);
        assert_eq!(
            serde_json::to_string(&result.fields).unwrap(),
            r#"{"host":"web","x":1,"reported_hostname":"web.example.org"}"#
        );
        let same = HostResult::answered(&host, object(br#"{"host":"web"}"#, "").unwrap());
        assert!(!same.fields.contains_key("reported_hostname"));
    }

    #[test]
    fn a_round_trip_is_rounded_to_milliseconds() {
        assert_eq!(rtt(Duration::from_micros(1499)), "1ms");
        assert_eq!(rtt(Duration::from_micros(1500)), "2ms");
    }

    #[test]
    fn an_answer_that_is_no_object_is_an_error() {
        for body in ["", "[]", "null", "{", "7"] {
            assert!(object(body.as_bytes(), "invalid JSON response").is_err(), "{body}");
        }
    }
}
