//! Rules about single lines: words that must not be there, blanks at the end, width.

use std::fs;
use std::path::Path;

use crate::Outcome;
use crate::code::blocks::is_word;
use crate::code::{self, Source, Violation};

/// The widest line of Rust, in characters. rustfmt leaves long literals and comments alone.
const WIDEST: usize = 140;

/// Words of unfinished work. Written in halves, or this file would break its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

/// Words that only mean something where this was written.
const FOREIGN: &[&str] = &[concat!("/wo", "rk/"), concat!("fa", "rm"), concat!(".lib", "rary")];

/// Text files that are held to the same words as code, by the end of their name.
const TEXTS: &[&str] = &["md", "toml", "sh", "service", "yml", "yaml"];

/// The rules for a Rust file.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut found = words(&source.path, &source.text);
    if !source.text.starts_with("//!") {
        found.push(source.violation(1, "does not begin with `//!`: say what the file is for"));
    }
    for (number, line) in (1..).zip(source.text.lines()) {
        if line.chars().count() > WIDEST {
            found.push(source.violation(number, format!("longer than {WIDEST} characters")));
        }
    }
    for (number, line) in (1..).zip(source.code.lines()) {
        if line.contains("#[ignore]") {
            found.push(source.violation(number, "ignored without a reason: `#[ignore = \"why\"]`"));
        }
    }
    found
}

/// The rules for text files that are not Rust.
pub(super) fn check_texts(repository: &Path) -> Outcome<Vec<Violation>> {
    let mut found = Vec::new();
    for path in code::files(repository)? {
        let below = path.strip_prefix(repository).unwrap_or(&path);
        let named = path.extension().and_then(|end| end.to_str()).is_some_and(|end| TEXTS.contains(&end));
        if named || below == Path::new(".ci/run") {
            let text = fs::read_to_string(&path).map_err(|why| format!("cannot read {}: {why}", path.display()))?;
            found.extend(words(below, &text));
        }
    }
    Ok(found)
}

fn words(path: &Path, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut report = |what: String| found.push(Violation { path: path.to_path_buf(), line: number, what });
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            report(format!("`{word}`: finish it, or file an issue and leave the word out"));
        }
        for word in FOREIGN.iter().filter(|word| has_word(line, word)) {
            report(format!("`{word}` means nothing to a reader of this repository"));
        }
        if line.ends_with([' ', '\t', '\r']) {
            report("blanks at the end of the line".to_owned());
        }
    }
    found
}

/// Whether `word` stands in `line` on its own: no identifier goes on at its ends. A word that begins with a dot is
/// not a field or a method either.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        let joined = |letter: Option<char>| letter.is_some_and(is_word);
        let (begins, ends) = (word.starts_with(is_word), word.ends_with(is_word));
        let called = word.starts_with('.') && before.is_some_and(|letter| is_word(letter) || ")]?".contains(letter));
        !(begins && joined(before) || ends && joined(after) || called)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(usize, String)> {
        check(&Source::new("src/a.rs".into(), text.to_owned())).into_iter().map(|v| (v.line, v.what)).collect()
    }

    #[test]
    fn a_tidy_file_has_no_violation() {
        assert_eq!(of("//! What it is for.\n\nfn f() {}\n"), []);
    }

    #[test]
    fn every_rule_is_reported_with_its_line() {
        let text = format!("fn f() {{}} \n// {} later\n#[ignore]\n//{}\n", UNFINISHED[0], "x".repeat(139));
        let lines: Vec<usize> = of(&text).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1, 2, 1, 4, 3]);
    }

    #[test]
    fn an_ignored_test_with_a_reason_is_tidy() {
        assert_eq!(of("//! x\n#[ignore = \"needs two hosts\"]\n"), []);
    }

    #[test]
    fn words_count_only_on_their_own() {
        assert!(!has_word("mkstemp(\"a.XXXXXX\")", UNFINISHED[2]));
        assert!(!has_word(&format!("a {}er", FOREIGN[1]), FOREIGN[1]));
        assert!(has_word(&format!("the {}.", FOREIGN[1]), FOREIGN[1]));
        assert!(!has_word(concat!("compiler", ".", "library"), FOREIGN[2]));
        assert!(has_word(&format!("see {} for it", FOREIGN[2]), FOREIGN[2]));
        assert!(has_word(&format!("in {}shared", FOREIGN[0]), FOREIGN[0]));
    }
}
