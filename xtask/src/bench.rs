//! `bench`: the figures, taken from the binary that ships.

use crate::run::Run;
use crate::{Outcome, dist, place};

/// Makes the binary of `dist` and runs the bench `figures` with its path in `CTRL_EXEC_BIN`. The words choose a scenario.
pub(crate) fn task(words: &[String]) -> Outcome {
    let binary = dist::shipped()?;
    let bench = Run::cargo().args(["bench", "--bench", "figures", "--"]).args(words);
    bench.env("CTRL_EXEC_BIN", &binary).dir(&place::repository()).go()
}
