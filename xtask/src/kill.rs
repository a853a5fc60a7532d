//! `kill`: the test that kills everybody while jobs run, long and large, with each kind of executor.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::run::Run;
use crate::test::EXECUTOR;
use crate::{Outcome, dist, place};

/// The test.
const TEST: &str = "jobs::killed::whoever_is_killed_no_job_is_lost_silently_and_none_runs_twice";
/// Rounds, and jobs at once in each, where nothing else is said.
const USUAL: [u64; 2] = [200, 50];
/// What makes a run repeatable.
const SEED: &str = "CTRL_EXEC_JOB_SEED";

/// Builds the static binary and kills it.
pub(crate) fn task(words: &[String]) -> Outcome {
    let [rounds, jobs] = numbers(words)?;
    let seed = std::env::var(SEED).unwrap_or_else(|_| of_now().to_string());
    let binary = dist::quick()?;
    for executor in ["private", "own", "system"] {
        println!("{executor} executor: {rounds} rounds of {jobs} jobs; again with {SEED}={seed}");
        let test = Run::cargo().args(["test", "--test", "it", "--", TEST, "--nocapture"]).dir(&place::repository());
        let test = test.env("CTRL_EXEC_BIN", &binary).env(SEED, &seed).without(&[EXECUTOR]);
        let test = if executor == "private" { test } else { test.env(EXECUTOR, executor) };
        test.env("CTRL_EXEC_JOB_ROUNDS", rounds.to_string()).env("CTRL_EXEC_JOBS", jobs.to_string()).go()?;
    }
    Ok(())
}

fn numbers(words: &[String]) -> Outcome<[u64; 2]> {
    let [rounds, jobs] = USUAL;
    let number = |word: &String| match word.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("`{word}` is no number of rounds or jobs: `cargo xtask kill [ROUNDS [JOBS]]`")),
    };
    match words {
        [] => Ok([rounds, jobs]),
        [rounds] => Ok([number(rounds)?, jobs]),
        [rounds, jobs] => Ok([number(rounds)?, number(jobs)?]),
        [_, _, more, ..] => Err(format!("`{more}` is one word too many: `cargo xtask kill [ROUNDS [JOBS]]`")),
    }
}

/// Another every time.
fn of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_and_jobs_are_numbers_in_this_order() {
        let words = |text: &str| numbers(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(words(""), Ok(USUAL));
        assert_eq!(words("20"), Ok([20, USUAL[1]]));
        assert_eq!(words("20 8"), Ok([20, 8]));
        for wrong in ["0", "many", "1 2 3", "5 -1"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
