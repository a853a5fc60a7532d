//! Building the targets: with the instruments that libFuzzer reads, and with the product's own versions of everything.

use std::path::{Path, PathBuf};

use super::{kept, sources};
use crate::Outcome;
use crate::place;
use crate::run::Run;

/// What `cargo fuzz` passes too, less its sanitizers, which a stable compiler does not have: a counter at each edge, a
/// table of their places, and the operands of comparisons.
const INSTRUMENTS: &[&str] = &[
    "--cfg fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Builds these targets and hands back the folder of their programs.
pub(super) fn build(names: &[&str]) -> Outcome<PathBuf> {
    lock()?;
    // With a target named, build scripts and procedural macros go without the instruments.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = kept().join("build");
    Run::cargo()
        .args(["build", "--quiet", "--release", "--target", &target])
        .arg("--manifest-path")
        .arg(sources().join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&folder)
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .env("RUSTFLAGS", INSTRUMENTS.join(" "))
        .dir(&place::repository())
        .go()
        .map_err(|why| format!("{why}\nlibFuzzer is made from its source, which takes a C++ compiler (Debian: g++)"))?;
    Ok(folder.join(target).join("release"))
}

/// Gives the targets the product's lock file, unless theirs was made from it already: cargo adds what only they need.
fn lock() -> Outcome {
    let (product, own) = (place::repository().join("Cargo.lock"), sources().join("Cargo.lock"));
    let made = |path: &Path| path.metadata().and_then(|facts| facts.modified()).ok();
    if made(&own) < made(&product) {
        std::fs::copy(&product, &own).map_err(|why| format!("cannot write {}: {why}", own.display()))?;
    }
    Ok(())
}
