//! Figures of the main job, each with its limit, as one table.
//!
//! `cargo xtask bench [SCENARIO [SIZE]]` runs it against the static binary; without a scenario, all of them. Times are
//! on the wall clock and are compared with floors that are measured in the same run, in turns. A figure that is over its
//! limit is marked and fails nothing, so that a loaded machine breaks no build.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a bench prints, starts programs, and has nobody to report errors to"
)]

mod agent;
mod caller;
mod calls;
mod cold;
mod endurance;
mod executor;
mod fleet;
mod floor;
mod hello;
mod helper;
mod process;
mod report;
mod runs;
mod site;
mod size;
mod spawner;
mod steps;
mod strangers;
mod stream;
mod time;
mod tls_pipe;
mod warm;

use std::path::PathBuf;

use report::Report;

/// A word, what it measures, what its number is, and the function.
struct Scenario {
    name: &'static str,
    about: &'static str,
    /// What a number behind the name means, and what it is without one.
    size: Option<(&'static str, u64)>,
    run: fn(&Bench, &mut Report),
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "cold", about: "whole processes, each with a connection of its own", size: None, run: cold::run },
    Scenario { name: "warm", about: "runs through the library on a kept connection", size: None, run: warm::run },
    Scenario {
        name: "agent",
        about: "the agent beside a bare server, and under many scripts",
        size: None,
        run: agent::run,
    },
    Scenario {
        name: "runs",
        about: "orders straight to an executor, and 200 confined runs a second",
        size: Some(("seconds", 10)),
        run: runs::run,
    },
    Scenario { name: "fleet", about: "64 agents, and 1000 connections at once", size: None, run: fleet::run },
    Scenario { name: "stream", about: "script output", size: Some(("bytes", 1_000_000_000)), run: stream::run },
    Scenario {
        name: "endurance",
        about: "growth over many requests",
        size: Some(("requests", 200_000)),
        run: endurance::run,
    },
    Scenario {
        name: "strangers",
        about: "a dispatcher among a thousand strangers",
        size: Some(("pings", 3000)),
        run: strangers::run,
    },
    Scenario { name: "size", about: "binary, start-up and resident memory", size: None, run: size::run },
];

/// What every scenario is given.
struct Bench {
    /// The program under test.
    binary: PathBuf,
    /// The number that was asked for, or the scenario's own.
    size: u64,
}

fn main() {
    // cargo itself adds an option.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if helper::run(&words) {
        return;
    }
    let (name, size) = (words.first().map(String::as_str), words.get(1));
    let chosen: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| name.is_none_or(|name| name == scenario.name)).collect();
    if chosen.is_empty() {
        return usage();
    }
    let binary =
        PathBuf::from(std::env::var_os("CTRL_EXEC_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_ctrl-exec").into()));
    let mut report = Report::default();
    for scenario in chosen {
        eprintln!("{}: {}", scenario.name, scenario.about);
        report.scenario(scenario.name);
        let size = size.map_or(scenario.size.map_or(0, |(_, size)| size), |text| number(text));
        (scenario.run)(&Bench { binary: binary.clone(), size }, &mut report);
    }
    println!("binary {}", binary.display());
    report.print();
}

/// `10G` and the like, in powers of ten.
fn number(text: &str) -> u64 {
    let split = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let factor = match unit {
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        other => {
            assert_eq!(other, "", "k, M and G are understood");
            1
        }
    };
    digits.parse::<u64>().expect("a number") * factor
}

fn usage() {
    println!("Scenarios, each with a number where one makes sense (k, M and G are understood):");
    for scenario in SCENARIOS {
        let size = scenario.size.map_or_else(String::new, |(what, size)| format!(" [{what}, {size}]"));
        println!("  {:<10} {}{size}", scenario.name, scenario.about);
    }
}
