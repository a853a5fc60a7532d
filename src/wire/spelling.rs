//! How a number was spelt: what a reader of JSON makes of it, in 64 bits, is not always what its writer meant.
//!
//! **Invariant:** given only a text that `serde_json` has read. What is no JSON is found to hold nothing.

use std::borrow::Cow;

use serde_json::Value;

/// The same text with each whole number that does not fit into 64 bits as a text, which is what the original makes of it.
#[must_use]
pub fn originals(body: &[u8]) -> Cow<'_, [u8]> {
    let mut changed = Vec::new();
    let (mut at, mut done) = (0, 0);
    while let Some(rest) = body.get(at..).filter(|rest| !rest.is_empty()) {
        let size = token(rest);
        let word = rest.get(..size).and_then(number);
        if let Some(word) = word.filter(|word| is_beyond_64_bits(word)) {
            changed.extend_from_slice(body.get(done..at).unwrap_or_default());
            changed.push(b'"');
            changed.extend_from_slice(word.as_bytes());
            changed.push(b'"');
            done = at + size;
        }
        at += size;
    }
    if changed.is_empty() {
        return Cow::Borrowed(body);
    }
    changed.extend_from_slice(body.get(done..).unwrap_or_default());
    Cow::Owned(changed)
}

/// The size of the string, or the number, or the single byte of something else that a text begins with.
fn token(text: &[u8]) -> usize {
    match text.first() {
        Some(b'"' | b'-' | b'0'..=b'9') => text.len() - Scan(text).value().1.0.len(),
        _ => 1,
    }
}

fn is_beyond_64_bits(word: &str) -> bool {
    let whole = word.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
    whole && word.parse::<i64>().is_err() && word.parse::<u64>().is_err()
}

/// The spelling of each number among the elements of the array that the object in `body` has under `key`; none where an
/// element is no number.
#[must_use]
pub(super) fn elements<'b>(body: &'b [u8], key: &str) -> Vec<Option<&'b str>> {
    let mut scan = match field(body, key) {
        Some(scan) if scan.next() == Some(b'[') => scan.behind(1),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    while let Some(byte) = scan.next() {
        match byte {
            b',' => scan = scan.behind(1),
            b']' => break,
            _ => {
                let (value, rest) = scan.value();
                found.push(number(value));
                scan = rest;
            }
        }
    }
    found
}

/// The value under `key` as the original reads it: a whole number that does not fit into 64 bits is a text.
#[must_use]
pub(super) fn exact(body: &[u8], key: &str, value: Value) -> Value {
    if !value.is_f64() {
        return value;
    }
    let spelt = field(body, key).and_then(|scan| number(scan.value().0));
    spelt.filter(|text| is_beyond_64_bits(text)).map_or(value, |text| Value::String(text.to_owned()))
}

fn number(value: &[u8]) -> Option<&str> {
    let begins = value.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
    std::str::from_utf8(value).ok().filter(|_| begins)
}

/// Where the value of `key` begins; of several, the last one's.
fn field<'b>(body: &'b [u8], key: &str) -> Option<Scan<'b>> {
    let mut scan = Scan(body);
    if scan.next()? != b'{' {
        return None;
    }
    scan = scan.behind(1);
    let mut found = None;
    loop {
        match scan.next()? {
            b'}' => return found,
            b',' => scan = scan.behind(1),
            _ => {
                let (name, rest) = scan.value();
                rest.next().filter(|byte| *byte == b':')?;
                let value = rest.behind(1);
                value.next()?;
                if serde_json::from_slice::<String>(name).is_ok_and(|name| name == key) {
                    found = Some(value);
                }
                scan = value.value().1;
            }
        }
    }
}

/// What is left of a text.
#[derive(Clone, Copy)]
struct Scan<'b>(&'b [u8]);

impl<'b> Scan<'b> {
    fn trimmed(self) -> &'b [u8] {
        self.0.trim_ascii_start()
    }

    /// The next byte that is not blank.
    fn next(self) -> Option<u8> {
        self.trimmed().first().copied()
    }

    /// What follows so many bytes that are not blank.
    fn behind(self, bytes: usize) -> Self {
        Self(self.trimmed().get(bytes..).unwrap_or_default())
    }

    /// The next value and what follows it; at least one byte, where there is one.
    fn value(self) -> (&'b [u8], Self) {
        let text = self.trimmed();
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        let mut end = text.len();
        for (at, byte) in text.iter().enumerate() {
            let last = match byte {
                _ if escaped => {
                    escaped = false;
                    continue;
                }
                b'\\' if quoted => {
                    escaped = true;
                    continue;
                }
                b'"' => {
                    quoted = !quoted;
                    !quoted && depth == 0
                }
                _ if quoted => continue,
                b'[' | b'{' => {
                    depth += 1;
                    continue;
                }
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    depth == 0
                }
                b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => {
                    end = at.max(1);
                    break;
                }
                _ => continue,
            };
            if last {
                end = at + 1;
                break;
            }
        }
        let (value, rest) = text.split_at(end.min(text.len()));
        (value, Self(rest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_found_as_it_was_spelt() {
        let body = br#" { "args" : 7, "x": {"args": [9]}, "a\u0072gs" : [ 1e3,-0 , 100000000000000000000,"2.50", 2.50,
            [1], {"a": "]\"}"}, null ] , "z": 1 } "#;
        let all = elements(body, "args");
        let expected = [Some("1e3"), Some("-0"), Some("100000000000000000000"), None, Some("2.50"), None, None, None];
        assert_eq!(all, expected);
        assert!(elements(br#"{"args":[]}"#, "args").is_empty() && elements(b"[1]", "args").is_empty());
    }

    #[test]
    fn a_whole_number_beyond_64_bits_is_not_changed() {
        let read = |text: &str| {
            let body = format!("{{\"reqid\": {text}}}");
            let value: Value = serde_json::from_str(&body).unwrap();
            exact(body.as_bytes(), "reqid", value["reqid"].clone()).to_string()
        };
        assert_eq!(read("12345678901234567890123"), "\"12345678901234567890123\"");
        assert_eq!(read("-12345678901234567890123"), "\"-12345678901234567890123\"");
        for same in ["7", "18446744073709551615", "1.5", "\"x\"", "null"] {
            assert_eq!(read(same), same);
        }
    }

    #[test]
    fn only_whole_numbers_beyond_64_bits_become_texts() {
        for (from, to) in [
            ("{\"a\":12345678901234567890123}", "{\"a\":\"12345678901234567890123\"}"),
            ("[-9223372036854775809 ,18446744073709551616]", "[\"-9223372036854775809\" ,\"18446744073709551616\"]"),
            (" 99999999999999999999\n", " \"99999999999999999999\"\n"),
        ] {
            assert_eq!(originals(from.as_bytes()), to.as_bytes());
        }
        let same = br#"{"\"12345678901234567890123":[-9223372036854775808,18446744073709551615,-0,1e30,1234567890123456789012.0],
            "x":"99999999999999999999","y":true}"#;
        assert!(matches!(originals(same), Cow::Borrowed(text) if text == same));
    }

    proptest! {
        #[test]
        fn what_the_original_reads_differs_in_large_numbers_alone(
            numbers in proptest::collection::vec("-?[1-9][0-9]{0,25}(\\.[0-9]{1,5})?", 0..8),
            text in "[\"\\\\0-9 -]{0,12}",
        ) {
            let body = format!("{{{}:[{}]}}", Value::String(text.clone()), numbers.join(" ,"));
            let read: Value = serde_json::from_slice(&originals(body.as_bytes())).unwrap();
            for (number, found) in numbers.iter().zip(read[&text].as_array().unwrap()) {
                let value: Value = serde_json::from_str(number).unwrap();
                let large = value.is_f64() && !number.contains('.');
                prop_assert_eq!(found, &if large { Value::String(number.clone()) } else { value });
            }
        }

        #[test]
        fn every_array_of_numbers_is_found_whole(numbers in proptest::collection::vec("-?[1-9][0-9]{0,30}(\\.[0-9]{1,5})?", 0..8)) {
            let body = format!("{{\"a\": \"[\\\"\", \"args\": [{}]}}", numbers.join(" , "));
            let found: Vec<_> = elements(body.as_bytes(), "args").into_iter().map(Option::unwrap).collect();
            prop_assert_eq!(found, numbers);
        }

        #[test]
        fn no_text_is_too_strange_to_be_looked_at(text in "[\\[\\]{}:,\"\\\\a1 \n-]{0,60}") {
            let _ = (elements(text.as_bytes(), "a"), exact(text.as_bytes(), "a", Value::from(1.5)));
            let _ = originals(text.as_bytes());
        }
    }
}
