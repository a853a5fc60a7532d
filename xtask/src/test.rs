//! `test`: every test, those in `tests/it` against the static binary, because that is what ships.

use crate::run::Run;
use crate::{Outcome, dist, place};

/// Builds the static binary and runs `cargo test --workspace` with its path in `CTRL_EXEC_BIN`.
pub(crate) fn task(words: &[String]) -> Outcome {
    let binary = dist::quick()?;
    println!("tests drive {}", binary.display());
    Run::cargo().args(["test", "--workspace"]).args(words).env("CTRL_EXEC_BIN", &binary).dir(&place::repository()).go()
}
