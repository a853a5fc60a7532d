//! A running agent as strangers' tools see it: sslyze looks for anything weak in its TLS, slowhttptest tries to use up
//! its connections. `cargo xtask probe` provides the tools and runs it; it ends with 1 if something is weak.
//!
//! The rate limits of the agent are off: with them, most of what is tried here would end at the tenth connection.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a probe prints, starts programs, and ends where one of its own steps fails"
)]

#[expect(dead_code, reason = "the bench uses more of it")]
#[path = "../bench/process.rs"]
mod process;
mod relay;
#[path = "../bench/site.rs"]
mod site;
mod slow;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use site::Site;

/// What is needed from outside.
struct Tools {
    /// The program under test.
    binary: PathBuf,
    /// The `python` of an environment with sslyze.
    python: PathBuf,
    /// Where reports are kept.
    reports: PathBuf,
}

/// One thing that was looked at.
struct Fact {
    what: String,
    /// What was seen, and whether that is as it should be.
    seen: String,
    fine: bool,
}

impl Fact {
    fn new(what: impl Into<String>, seen: impl Into<String>, fine: bool) -> Self {
        Self { what: what.into(), seen: seen.into(), fine }
    }
}

fn main() -> ExitCode {
    let place = |key: &str| std::env::var_os(key).map(PathBuf::from).unwrap_or_else(|| panic!("{key} is not set"));
    let tools = Tools {
        binary: place("CTRL_EXEC_BIN"),
        python: place("CTRL_EXEC_PROBE_PYTHON"),
        reports: place("CTRL_EXEC_PROBE_REPORTS"),
    };
    ctrl_exec::sys::descriptors::raise(65_536).unwrap();
    let site = Site::start(&tools.binary);
    println!("the agent listens on {}", site.address());
    let mut weak = show(&tls::facts(&site, &tools));
    slow::facts(&site, &tools, |seen| weak += show(&seen));
    println!("\n{weak} of them weak; reports are in {}", tools.reports.display());
    if weak == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints the facts and counts the bad ones.
fn show(facts: &[Fact]) -> usize {
    for Fact { what, seen, fine } in facts {
        println!("{:4}  {what:52}  {seen}", if *fine { "ok" } else { "WEAK" });
    }
    facts.iter().filter(|fact| !fact.fine).count()
}
