//! A profile's `environment`: `NAME=value` pairs with blanks between them.
//!
//! A value that holds blanks stands between double quotes (`GREETING="good day"`); within them `\"` and `\\` mean the
//! character behind the backslash. All pairs are on one line, since one key is one line in these files; and as on every
//! line, a `#` behind a blank is refused as a comment, also between quotes.
//!
//! The pairs are root's own words, so a script's search path and every other name are free. Refused are the names that
//! make a program load code from another file ([`LOADERS`]): what is judged before a run (owner, mode, `sha256=`) is the
//! script, and it must be the script that runs.

use std::ops::Range;

use super::diagnostic::shown;
use super::reader::Cut;
use super::value::Complaint;

/// Names, and beginnings of names with `*`, that load code before a script's first line: ld.so(8), bash(1), sh(1p).
const LOADERS: [&str; 4] = ["LD_*", "GLIBC_TUNABLES", "BASH_ENV", "ENV"];

/// Cuts a value into its pairs.
pub(super) fn pairs(text: &str) -> Vec<Cut<(String, String)>> {
    let mut seen: Vec<String> = Vec::new();
    let pieces = pieces(text).into_iter();
    let judged = pieces.map(|range| {
        let outcome = pair(text.get(range.clone()).unwrap_or_default()).and_then(|pair| {
            if seen.contains(&pair.0) {
                return Err(Complaint::of_key(format!("sets '{}' twice", pair.0)).help("remove one of the two"));
            }
            seen.push(pair.0.clone());
            Ok(pair)
        });
        (range, outcome)
    });
    judged.collect()
}

/// The bytes of each piece between blanks, where blanks between quotes do not count.
fn pieces(text: &str) -> Vec<Range<usize>> {
    let (mut all, mut start, mut quoted, mut escaped) = (Vec::new(), None, false, false);
    for (at, c) in text.char_indices() {
        if !quoted && matches!(c, ' ' | '\t') {
            all.extend(start.take().map(|start| start..at));
            continue;
        }
        start = start.or(Some(at));
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    all.extend(start.map(|start| start..text.len()));
    all
}

fn pair(piece: &str) -> Result<(String, String), Complaint> {
    let (name, value) = piece.split_once('=').ok_or_else(|| {
        Complaint::of_key(format!("'{}' is no NAME=value", shown(piece)))
            .help("write NAME=value, blanks between pairs; a value with blanks between double quotes")
    })?;
    let begins = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !name.starts_with(begins) || !name.chars().all(|c| begins(c) || c.is_ascii_digit()) {
        let complaint = Complaint::of_key(format!("'{}' is no name of a variable", shown(name)));
        return Err(complaint.help("letters, digits and '_', no digit first"));
    }
    let loads = |loader: &&str| loader.strip_suffix('*').map_or(*loader == name, |start| name.starts_with(start));
    if LOADERS.iter().any(loads) {
        return Err(Complaint::of_key(format!("cannot set '{name}'")).help(
            "it makes programs load code that nobody judged; set it in the script, for the one program that needs it",
        ));
    }
    Ok((name.to_owned(), unquoted(value)?))
}

fn unquoted(value: &str) -> Result<String, Complaint> {
    let malformed = || {
        Complaint::of_key(format!("'{}' is no value", shown(value)))
            .help("double quotes stand around the whole value; within it write \\\" and \\\\")
    };
    let Some(rest) = value.strip_prefix('"') else {
        return if value.contains('"') { Err(malformed()) } else { Ok(value.to_owned()) };
    };
    let (mut plain, mut chars) = (String::new(), rest.chars());
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(plain),
            Some('\\') => plain.push(chars.next().filter(|c| matches!(c, '"' | '\\')).ok_or_else(malformed)?),
            None | Some('"') => return Err(malformed()),
            Some(c) => plain.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        pairs(text).into_iter().map(|(_, outcome)| outcome.unwrap()).collect()
    }

    fn refusal(text: &str) -> String {
        let first = pairs(text).into_iter().find_map(|(range, outcome)| Some((range, outcome.err()?)));
        first.map(|(range, complaint)| format!("{range:?} {complaint:?}")).unwrap()
    }

    #[test]
    fn pairs_stand_between_blanks_and_values_with_blanks_between_quotes() {
        let all = read("PATH=/opt/x/bin:/usr/bin  _E=\tX9=\"a b\\\"c\\\\\" Y=a=b'c\\n");
        let expected = [("PATH", "/opt/x/bin:/usr/bin"), ("_E", ""), ("X9", "a b\"c\\"), ("Y", "a=b'c\\n")];
        assert_eq!(all, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_pair_is_refused_at_its_place() {
        assert!(refusal("A=1 B C=2").starts_with("4..5 "));
        for (text, words) in [
            ("1A=x", "no name of a variable"),
            ("=x", "no name of a variable"),
            ("A-B=x", "no name of a variable"),
            ("A=\"x", "is no value"),
            ("A=x\"y\"", "is no value"),
            ("A=\"x\"y", "is no value"),
            ("A=\"\\n\"", "is no value"),
            ("A=1 A=2", "sets 'A' twice"),
            ("LD_PRELOAD=/x", "cannot set 'LD_PRELOAD'"),
            ("ENV=/x", "cannot set 'ENV'"),
        ] {
            assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
        }
        assert_eq!(read("ENVIRONMENT=prod").len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_what_is_read(values in proptest::collection::vec("\\PC{0,12}", 0..4)) {
            let quoted = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
            let text: Vec<String> = values.iter().zip(0..).map(|(v, n)| format!("V{n}=\"{}\"", quoted(v))).collect();
            let found: Vec<String> = read(&text.join(" ")).into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(found, values);
        }

        #[test]
        fn no_text_makes_it_panic_and_every_piece_lies_within_it(text in ".{0,60}") {
            for (range, _) in pairs(&text) {
                prop_assert!(text.get(range).is_some_and(|piece| !piece.is_empty()));
            }
        }
    }
}
