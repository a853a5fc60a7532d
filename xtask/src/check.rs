//! `check`: everything that CI runs, in CI's order, up to the first failure.

use std::time::{Duration, Instant};

use crate::run::Run;
use crate::{Outcome, deny, layers, no_words, place, test, tidy, vm};

/// One step: its name, and what it does.
type Step = (&'static str, fn() -> Outcome);

/// The quick ones first: a stray blank should not cost a build.
const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("clippy", clippy),
    ("tidy", || tidy::task(&[])),
    ("layers", || layers::task(&[])),
    ("test", || test::task(&[])),
    ("vm", || vm::task(&[])),
    ("doc", doc),
    ("deny", deny::all),
];

/// Runs every step and prints the time of each.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("check", words)?;
    // The last step's tool, asked for before the first: nobody should wait for the tests to hear of it.
    deny::installed()?;
    let start = Instant::now();
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("==> {name}");
        let begun = Instant::now();
        step().map_err(|why| format!("check stopped at `{name}`: {why}"))?;
        times.push(format!("{name} {}", seconds(begun.elapsed())));
        println!("==> {name}: ok in {}\n", seconds(begun.elapsed()));
    }
    println!("check: all ok in {} ({})", seconds(start.elapsed()), times.join(", "));
    Ok(())
}

/// The names of all steps, in their order, as people are told them.
#[cfg(test)]
pub(crate) fn steps() -> String {
    STEPS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

fn fmt() -> Outcome {
    Run::cargo().args(["fmt", "--all", "--check"]).dir(&place::repository()).go()
}

fn clippy() -> Outcome {
    Run::cargo()
        .args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
        .dir(&place::repository())
        .go()
}

fn doc() -> Outcome {
    Run::cargo()
        .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .dir(&place::repository())
        .go()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_tenth_of_a_second() {
        assert_eq!(seconds(Duration::from_millis(61_290)), "61.2 s");
    }
}
