//! `fuzz`: the targets of `tests/fuzz` under libFuzzer, guided by coverage, on a stable compiler.
//!
//! Seeds and dictionaries are in the tree; what a run learns is kept in `target/fuzz`, and the next run begins with it.

mod build;
mod figures;
mod session;

use std::path::{Path, PathBuf};

use crate::{Outcome, place};
use figures::Figures;
use session::Session;

/// CPU-seconds for each target, unless told otherwise.
const SECONDS: u64 = 60;

/// A target: what it is fed with, and how much of it at most, in bytes.
struct Target {
    name: &'static str,
    about: &'static str,
    longest: u32,
}

const fn target(name: &'static str, about: &'static str, longest: u32) -> Target {
    Target { name, about, longest }
}

const TARGETS: &[Target] = &[
    target("request_head", "HTTP/1 requests to an agent, in pieces of any size, up to each verb's answer", 80_000),
    target("http_2", "frames of HTTP/2 to an agent", 16_384),
    target("run_body", "the body of POST /run", 4096),
    target("stream_frames", "a run's output on its way back, in pieces of any size", 4096),
    target("pairing", "either form's pairing messages, and certificate requests", 4096),
    target("trust_map", "the agent's list of trusted serials", 4096),
    target("revocation_list", "the list of revoked serials", 4096),
    target("sidecar", "a script's sidecar, and arguments for its contract", 4096),
    target("agent_conf", "agent.conf", 4096),
    target("scripts_conf", "scripts.conf", 4096),
    target("order", "orders to the executor, with descriptors", 16_384),
];

/// Runs one target or all of them, or one input again.
pub(crate) fn task(words: &[String]) -> Outcome {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, rest) = words.split_first().map_or(("all", [].as_slice()), |(name, rest)| (*name, rest));
    if matches!(name, "help" | "list" | "--help" | "-h" | "--list") {
        println!("{}", help());
        return Ok(());
    }
    let chosen: Vec<&Target> = TARGETS.iter().filter(|target| name == "all" || target.name == name).collect();
    match (chosen.as_slice(), rest) {
        ([], _) => Err(format!("no fuzz target is named `{name}`\n\n{}", help())),
        (all, []) => run(all, SECONDS),
        (all, [number]) if number.parse::<u64>().is_ok_and(|number| number > 0) => {
            run(all, number.parse().unwrap_or(SECONDS))
        }
        ([only], [file]) if Path::new(file).is_file() => again(only, Path::new(file)),
        (_, [word, ..]) => Err(format!("`{word}` is neither a number of seconds nor an input of one target")),
    }
}

fn run(targets: &[&Target], seconds: u64) -> Outcome {
    let programs = build::build(&targets.iter().map(|target| target.name).collect::<Vec<_>>())?;
    let mut table = Figures::HEADER.to_owned();
    let mut found = Vec::new();
    for target in targets {
        println!("==> {} for {seconds} CPU-seconds", target.name);
        let session = Session { name: target.name, longest: target.longest, program: programs.join(target.name) };
        let figures = session.run(seconds)?;
        println!("{figures}");
        found.extend(figures.finding().map(|file| format!("{}: {}", target.name, file.display())));
        table.extend(["\n", &figures.to_string()]);
    }
    println!("\n{table}");
    if found.is_empty() {
        return Ok(());
    }
    let list = found.join("\n  ");
    Err(format!(
        "findings:\n  {list}\n`cargo xtask fuzz TARGET FILE` shows one again; fix it and keep it as a unit test"
    ))
}

/// One input again, with all that it prints.
fn again(target: &Target, file: &Path) -> Outcome {
    let programs = build::build(&[target.name])?;
    crate::run::Run::new(programs.join(target.name)).arg(file).env("RUST_BACKTRACE", "1").go()
}

/// Where the sources of the targets are.
fn sources() -> PathBuf {
    place::repository().join("tests/fuzz")
}

/// Where everything is kept that a run makes.
fn kept() -> PathBuf {
    place::repository().join("target/fuzz")
}

fn help() -> String {
    let width = TARGETS.iter().map(|target| target.name.len()).max().unwrap_or(0);
    let line = |target: &Target| format!("\n  {:width$}  {}", target.name, target.about);
    let lines: String = TARGETS.iter().map(line).collect();
    format!(
        "usage: cargo xtask fuzz [all|TARGET [SECONDS]]   {SECONDS} CPU-seconds each unless told otherwise\n       \
         cargo xtask fuzz TARGET FILE             one input again\n\ntargets:{lines}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_a_program_seeds_and_a_line_in_the_help() {
        let programs = std::fs::read_dir(sources().join("bin")).unwrap().count();
        assert_eq!(programs, TARGETS.len());
        for target in TARGETS {
            assert!(sources().join("bin").join(target.name).with_extension("rs").is_file(), "{}", target.name);
            assert!(sources().join("seeds").join(target.name).is_dir(), "{}", target.name);
            assert!(sources().join("dictionaries").join(target.name).is_file(), "{}", target.name);
            assert!(help().contains(target.name));
        }
    }

    /// The product's own tests compile the same sources with the product's own crates, so that alone would not be seen.
    #[test]
    fn every_crate_that_the_targets_use_is_in_their_manifest() {
        let manifest = std::fs::read_to_string(sources().join("Cargo.toml")).unwrap();
        let mut asked = 0;
        for file in std::fs::read_dir(sources()).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_none_or(|kind| kind != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&file).unwrap();
            let roots = text.lines().filter_map(|line| line.strip_prefix("use ")?.split("::").next());
            for root in roots.filter(|root| !matches!(*root, "crate" | "self" | "super" | "std")) {
                let names = [root.to_owned(), root.replace('_', "-")];
                let listed = manifest.lines().any(|line| names.iter().any(|name| line.split(' ').next() == Some(name)));
                assert!(listed, "{} uses {root}", file.display());
                asked += 1;
            }
        }
        assert!(asked > 10, "{asked} were found");
    }

    #[test]
    fn what_is_neither_target_nor_seconds_is_refused() {
        for words in [&["nothing"][..], &["order", "x"], &["all", "0"], &["order", "1", "2"]] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert!(task(&words).is_err(), "{words:?}");
        }
    }
}
