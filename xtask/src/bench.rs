//! `bench`: the figures, taken from the binary that ships.

use crate::run::Run;
use crate::{Outcome, dist, no_words, place};

/// Makes the binary of `dist` and runs the bench `floor` with its path in `CTRL_EXEC_BIN`.
pub(crate) fn task(words: &[String]) -> Outcome {
    no_words("bench", words)?;
    let binary = dist::shipped()?;
    Run::cargo().args(["bench", "--bench", "floor"]).env("CTRL_EXEC_BIN", &binary).dir(&place::repository()).go()
}
