//! `tidy`: the house rules that no lint checks. All violations at once, each with its place.

mod declared;
mod lines;
mod named;
mod size;
mod unsafety;

use crate::code::{self, Source, Violation};
use crate::{Outcome, no_words, place};

/// The folders with Rust code; those that do not exist are passed over.
const FOLDERS: &[&str] = &["src", "tests", "xtask/src"];

/// Checks every file and prints the figures that have no hard limit.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("tidy", words)?;
    let repository = place::repository();
    let mut sources = Vec::new();
    for folder in FOLDERS.iter().filter(|folder| repository.join(folder).is_dir()) {
        sources.extend(code::load(&repository, folder)?);
    }
    let mut found = lines::check_texts(&repository)?;
    for source in &sources {
        found.extend(lines::check(source));
        found.extend(size::check(source));
    }
    found.extend(declared::check(&sources));
    found.extend(named::check(&sources));
    found.extend(unsafety::check(&sources));
    println!("{}", size::figures(&sources));
    println!("{}", unsafety::figure(&sources));
    code::verdict("tidy", found)
}

/// Whether only tests compile this file.
fn is_for_tests(source: &Source) -> bool {
    source.path.starts_with("tests") || source.product.is_empty()
}

/// The first line of a file.
fn at_top(source: &Source, what: String) -> Violation {
    source.violation(1, what)
}
