//! Tests that a document names must exist: a table of faults and tests is worth nothing when it rots.

use std::collections::HashSet;
use std::path::Path;

use crate::code::{Source, Violation};
use crate::place;

/// The documents whose backquoted snake-case sentences are names of tests.
const DOCUMENTS: &[&str] = &["SECURITY.md"];
/// A name with fewer underscores may be a configuration key.
const LEAST_UNDERSCORES: usize = 3;

/// Checks every document that exists.
pub(super) fn check(sources: &[Source]) -> Vec<Violation> {
    let functions: HashSet<&str> = sources.iter().flat_map(|source| functions(&source.code)).collect();
    let mut found = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(place::repository().join(document)).unwrap_or_default();
        for (line, name) in names(&text).filter(|(_, name)| !functions.contains(name)) {
            let what = format!("names the test `{name}`, which does not exist");
            found.push(Violation { path: Path::new(document).to_path_buf(), line, what });
        }
    }
    found
}

/// Every function's name in a source text.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next())
}

/// Backquoted sentences in snake case, each with its line.
fn names(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        let quoted = line.split('`').skip(1).step_by(2);
        quoted.filter(|quoted| is_sentence(quoted)).map(move |quoted| (index + 1, quoted))
    })
}

fn is_sentence(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && text.bytes().filter(|byte| *byte == b'_').count() >= LEAST_UNDERSCORES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_found_and_keys_are_not() {
        let text = "a `run_as` b `a_test_that_is_named` c\n`another_test_with_a_name`";
        assert_eq!(names(text).collect::<Vec<_>>(), [(1, "a_test_that_is_named"), (2, "another_test_with_a_name")]);
    }

    #[test]
    fn functions_are_known_by_name_with_or_without_parameters() {
        let text = "fn one_two() {}\nasync fn three<T>(x: T) {}";
        assert_eq!(functions(text).collect::<Vec<_>>(), ["one_two", "three"]);
    }
}
