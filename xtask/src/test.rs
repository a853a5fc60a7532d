//! `test`: every test, those in `tests/it` against the static binary, because that is what ships; and those that drive
//! runs once more for each kind of executor.

use std::path::Path;

use crate::run::Run;
use crate::{Outcome, dist, place};

/// Says to `tests/it` which executor its agents have; without it, a private one.
pub(crate) const EXECUTOR: &str = "CTRL_EXEC_TEST_EXECUTOR";
/// The other two: the agent's own, which it starts as root, and the system's.
const EXECUTORS: [&str; 2] = ["own", "system"];
/// The tests whose subject is what an executor does.
const RUNS: [&str; 4] = ["run::", "stream::", "jobs::", "reload::"];

/// Builds the static binary and runs `cargo test --workspace` with its path in `CTRL_EXEC_BIN`. With words of its own
/// for cargo it runs those alone.
pub(crate) fn task(words: &[String]) -> Outcome {
    let binary = dist::quick()?;
    println!("tests drive {}", binary.display());
    driving(&binary).arg("--workspace").args(words).go()?;
    if !words.is_empty() {
        return Ok(());
    }
    for executor in EXECUTORS {
        println!("once more, with an executor of root's: {executor}");
        driving(&binary).args(["--test", "it", "--"]).args(RUNS).env(EXECUTOR, executor).go()?;
    }
    Ok(())
}

fn driving(binary: &Path) -> Run {
    Run::cargo().arg("test").env("CTRL_EXEC_BIN", binary).dir(&place::repository())
}
