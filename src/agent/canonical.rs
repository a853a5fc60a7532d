//! JSON in the one form that the original takes digests of, so that both name the same sidecar by the same version:
//! keys sorted by code point, no blanks, only `"`, `\` and C0 controls escaped.
//!
//! Numbers are what the original makes of them: `2.50` is 2.5 and `1e3` is 1000 (C's `%.15g`). Integers beyond 64 bits, which
//! it turns into text with every digit, are text by then ([`crate::wire::spelling::originals`]).
//!
//! The original takes text without a character above U+00FF as Latin-1, and any other as UTF-8.

use serde_json::{Map, Number, Value};

/// The bytes of an object.
pub(super) fn bytes(body: &Map<String, Value>) -> Vec<u8> {
    let mut text = String::new();
    object(body, &mut text);
    let latin: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    latin.unwrap_or_else(|| text.into_bytes())
}

fn value(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => object(fields, text),
        Value::Array(values) => {
            text.push('[');
            separated(values, text, self::value);
            text.push(']');
        }
        Value::Number(number) => text.push_str(&self::number(number)),
        // Texts, true, false and null: serde_json escapes as the original does.
        other => text.push_str(&other.to_string()),
    }
}

fn object(fields: &Map<String, Value>, text: &mut String) {
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    text.push('{');
    separated(sorted, text, |(name, field), text| {
        value(&Value::String(name.clone()), text);
        text.push(':');
        value(field, text);
    });
    text.push('}');
}

fn separated<T>(items: impl IntoIterator<Item = T>, text: &mut String, each: impl Fn(T, &mut String)) {
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        each(item, text);
    }
}

pub(super) fn number(number: &Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) => general(float),
        None => number.to_string(),
    }
}

/// `%.15g` of printf(3).
fn general(float: f64) -> String {
    let scientific = format!("{float:.14e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let trim = |digits: &str| match digits.split_once('.') {
        Some(_) => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => digits.to_owned(),
    };
    match exponent.parse::<i32>() {
        Ok(power @ -4..=14) => trim(&format!("{float:.*}", usize::try_from(14 - power).unwrap_or(0))),
        Ok(power) => format!("{}e{}{:02}", trim(mantissa), if power < 0 { '-' } else { '+' }, power.abs()),
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<u8> {
        bytes(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn keys_are_sorted_and_blanks_gone_at_every_depth() {
        assert_eq!(
            of("{ \"b\" : [ 1, {\"z\":null, \"a\":true} ],\n\"a\": {} }"),
            br#"{"a":{},"b":[1,{"a":true,"z":null}]}"#
        );
    }

    #[test]
    fn only_what_must_be_is_escaped() {
        let json = r#"{"a":"\u0022\u005c\/\u0001\n\u001f\u007f"}"#;
        assert_eq!(of(json), "{\"a\":\"\\\"\\\\/\\u0001\\n\\u001f\u{7f}\"}".as_bytes());
    }

    #[test]
    fn numbers_are_spelled_as_the_original_spells_them() {
        for (from, to) in [
            ("2.50", "2.5"),
            ("1e3", "1000"),
            ("1.0", "1"),
            ("0.1", "0.1"),
            ("-12", "-12"),
            ("18446744073709551615", "18446744073709551615"),
            ("1e15", "1e+15"),
            ("123456789012345.0", "123456789012345"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("1.5e300", "1.5e+300"),
        ] {
            assert_eq!(
                String::from_utf8(of(&format!("{{\"a\":{from}}}"))).unwrap(),
                format!("{{\"a\":{to}}}"),
                "{from}"
            );
        }
    }

    #[test]
    fn text_without_wide_characters_is_latin_1() {
        assert_eq!(of(r#"{"a":"é"}"#), b"{\"a\":\"\xe9\"}");
        assert_eq!(of(r#"{"a":"é€"}"#), "{\"a\":\"é€\"}".as_bytes());
    }
}
