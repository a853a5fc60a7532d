//! What stands beside a script, and the arguments that it allows.

use ctrl_exec::agent::contract::Contract;
use ctrl_exec::agent::sidecar::{Sidecar, Terms};
use serde_json::{Map, Value};

/// A sidecar, and behind a NUL each an argument of a call.
pub fn sidecar(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let body = parts.next().unwrap_or_default();
    let args: Vec<String> = parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    let said = std::cell::Cell::new(0);
    let parsed = Sidecar::parse(body, &|_, reason| {
        assert!(!reason.contains(char::is_control), "{reason:?}");
        said.set(said.get() + 1);
    });
    let Ok(sidecar) = parsed else { return };
    let Some((shown, version)) = &sidecar.shown else { panic!("an object that is not shown") };
    judge_version(version);
    let printed = serde_json::to_vec(shown).unwrap_or_default();
    assert_eq!(printed, body.trim_ascii());
    let again = Sidecar::parse(&printed, &|_, _| ()).ok().and_then(|again| again.shown);
    assert_eq!(again.as_ref(), sidecar.shown.as_ref());
    let Ok(Value::Object(shown)) = serde_json::from_str(shown.as_str()) else { panic!("no object is shown") };
    match &sidecar.contract {
        Terms::Open => assert!(!shown.contains_key("arguments")),
        Terms::Broken(reason) => assert!(said.get() > 0 && !reason.is_empty()),
        Terms::Contract(contract) => call(contract, &shown, &args),
    }
}

fn judge_version(version: &str) {
    let own = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let derived = version.strip_prefix("sha256:").filter(|digest| digest.len() == 12);
    assert!(own(derived.unwrap_or(version)) && (1..=64).contains(&version.len()), "{version}");
}

/// Whatever is refused is refused in few words; whatever is allowed means something.
fn call(contract: &Contract, shown: &Map<String, Value>, args: &[String]) {
    match contract.check(args) {
        Err(refusal) => {
            let codes = ["arguments-not-allowed", "arguments-too-large", "argument-nul"];
            assert!(codes.contains(&refusal.code()), "{}", refusal.code());
            assert!(refusal.text().chars().count() < 400, "{}", refusal.text());
            assert!(!refusal.text().contains(char::is_control), "{:?}", refusal.text());
        }
        Ok(meant) => {
            let elements = shown.get("argv").and_then(Value::as_array).into_iter().flatten();
            let mut words: Vec<String> = elements.filter_map(literal).collect();
            let declared = shown["arguments"]["properties"].as_object();
            let defaults = declared.into_iter().flatten().filter_map(|(_, property)| property.get("default"));
            meant.values().chain(defaults).for_each(|value| spell(value, &mut words));
            for arg in args {
                assert!(words.contains(arg) || is_number_in(arg, &meant), "{arg:?} means nothing in {meant:?}");
            }
        }
    }
}

fn literal(element: &Value) -> Option<String> {
    element.as_str().or_else(|| element["flag"].as_str()).map(str::to_owned)
}

fn spell(value: &Value, words: &mut Vec<String>) {
    match value {
        Value::String(text) => words.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| spell(item, words)),
        other => words.push(other.to_string()),
    }
}

/// A number may be written in several ways.
fn is_number_in(word: &str, meant: &Map<String, Value>) -> bool {
    let Ok(number) = serde_json::from_str::<Value>(word) else { return false };
    number.is_number() && meant.values().any(|value| *value == number || holds(value, &number))
}

fn holds(value: &Value, number: &Value) -> bool {
    value.as_array().is_some_and(|items| items.contains(number))
}
