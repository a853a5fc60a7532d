//! How long files and functions are.

use super::{at_top, is_for_tests};
use crate::code::blocks::{Function, functions, test_lines};
use crate::code::{Source, Violation};

/// The longest file, in lines, its tests not counted.
const LONGEST_FILE: usize = 400;
/// The longest function outside of tests, in lines.
const LONGEST_FUNCTION: usize = 60;
/// What half of the files and functions should stay within.
const MEDIAN_FILE: usize = 150;
const MEDIAN_FUNCTION: usize = 10;

/// The hard limits.
pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let lines = length(source);
    if lines > LONGEST_FILE {
        found
            .push(at_top(source, format!("{lines} lines without its tests, over {LONGEST_FILE}: split it by purpose")));
    }
    for Function { name, line, lines } in measured(source) {
        if lines > LONGEST_FUNCTION {
            found.push(source.violation(line, format!("`{name}` has {lines} lines, over {LONGEST_FUNCTION}")));
        }
    }
    found
}

/// The medians and the longest, for people to watch.
pub(super) fn figures(sources: &[Source]) -> String {
    let files: Vec<usize> = sources.iter().map(length).collect();
    let functions: Vec<usize> = sources.iter().flat_map(measured).map(|function| function.lines).collect();
    format!(
        "{}\n{}",
        summary("files", files, MEDIAN_FILE, LONGEST_FILE),
        summary("functions", functions, MEDIAN_FUNCTION, LONGEST_FUNCTION)
    )
}

fn summary(what: &str, mut sizes: Vec<usize>, aim: usize, limit: usize) -> String {
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).copied().unwrap_or(0);
    let longest = sizes.last().copied().unwrap_or(0);
    let verdict = if median > aim { ": over the aim" } else { "" };
    let count = sizes.len();
    format!("{what}: {count}, median {median} lines (aim {aim}), longest {longest} (limit {limit}){verdict}")
}

/// Lines without the file's tests. In a file that is nothing but tests, they count.
fn length(source: &Source) -> usize {
    let tests = if is_for_tests(source) { 0 } else { test_lines(&source.code) };
    source.text.lines().count().saturating_sub(tests)
}

fn measured(source: &Source) -> Vec<Function> {
    if is_for_tests(source) { Vec::new() } else { functions(&source.product) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text.to_owned())
    }

    fn body(lines: usize) -> String {
        format!("fn f() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    #[test]
    fn a_function_may_have_sixty_lines_and_not_one_more() {
        assert_eq!(check(&source("src/a.rs", &body(60))), []);
        let found = check(&source("src/a.rs", &format!("//! x\n{}", body(61))));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 2);
    }

    #[test]
    fn tests_do_not_count_in_a_files_length() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// a comment\n\n".repeat(400));
        let file = source("src/a.rs", &format!("//! x\n{}\n{tests}", body(3)));
        assert_eq!(length(&file), 5);
        assert_eq!(check(&file), []);
    }

    #[test]
    fn a_file_over_the_limit_is_reported() {
        assert_eq!(check(&source("src/a.rs", &"// x\n".repeat(400))), []);
        assert_eq!(check(&source("src/a.rs", &"// x\n".repeat(401))).len(), 1);
        assert_eq!(check(&source("tests/it/a.rs", &"// x\n".repeat(401))).len(), 1);
    }

    #[test]
    fn test_functions_may_be_long() {
        assert_eq!(check(&source("tests/it/a.rs", &body(100))), []);
    }
}
