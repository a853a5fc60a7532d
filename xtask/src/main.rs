//! Everything a developer or CI runs on this repository: `cargo xtask <task>`. Standard library only, and not
//! linked to the product, so that a broken product never takes its tools along.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task tells its progress to the terminal")]
#![expect(clippy::disallowed_methods, reason = "a build tool starts processes and writes files it can make again")]

mod bench;
mod check;
mod code;
mod deny;
mod dist;
#[cfg(test)]
mod documented;
mod fuzz;
mod kill;
mod layers;
mod place;
mod probe;
#[cfg(test)]
mod refusals;
mod run;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

/// What a task ends with. The text names the thing, the place and the remedy.
type Outcome<T = ()> = Result<T, String>;

/// One line of the help and the function behind it.
struct Task {
    name: &'static str,
    arguments: &'static str,
    about: &'static str,
    start: fn(&[String]) -> Outcome,
}

/// Every task, in the order of the help.
const TASKS: &[Task] = &[
    Task {
        name: "check",
        arguments: "",
        about: "what CI runs, in CI's order, up to the first failure",
        start: check::task,
    },
    Task { name: "tidy", arguments: "", about: "the house rules that no lint checks", start: tidy::task },
    Task { name: "layers", arguments: "", about: "which room may use what, and cycles", start: layers::task },
    Task {
        name: "test",
        arguments: "[CARGO TEST ARGUMENTS]",
        about: "all tests, those in tests/it against the static binary",
        start: test::task,
    },
    Task {
        name: "static",
        arguments: "[--profile NAME]",
        about: "a static binary made quickly; prints its path",
        start: dist::quick_task,
    },
    Task {
        name: "dist",
        arguments: "[--profile NAME]",
        about: "the static binary that ships, proven, with checksum and SBOM, in dist/",
        start: dist::task,
    },
    Task {
        name: "usual",
        arguments: "",
        about: "lists anew what the usual calls execute, for the linker; needs valgrind",
        start: dist::usual::task,
    },
    Task {
        name: "vm",
        arguments: "[[it] TEST FILTERS]",
        about: "the tests of confinement on Debian's kernel, in a virtual machine",
        start: vm::task,
    },
    Task {
        name: "kill",
        arguments: "[ROUNDS [JOBS]]",
        about: "agents, executors and monitors killed while jobs run; 200 rounds of 50 jobs with each kind of executor",
        start: kill::task,
    },
    Task {
        name: "bench",
        arguments: "[SCENARIO [SIZE]]",
        about: "the figures, taken from the binary that ships; `bench help` names the scenarios",
        start: bench::task,
    },
    Task {
        name: "fuzz",
        arguments: "[all|TARGET [SECONDS]]",
        about: "fuzz targets, guided by coverage; `fuzz list` names them",
        start: fuzz::task,
    },
    Task {
        name: "probe",
        arguments: "",
        about: "sslyze and slow clients against a running agent; needs PyPI and slowhttptest",
        start: probe::task,
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        println!("{}", help());
        return ExitCode::SUCCESS;
    };
    match start(name, rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn start(name: &str, rest: &[String]) -> Outcome {
    if matches!(name, "help" | "--help" | "-h") {
        println!("{}", help());
        return Ok(());
    }
    let task = TASKS
        .iter()
        .find(|task| task.name == name)
        .ok_or_else(|| format!("no task is named `{name}`\n\n{}", help()))?;
    (task.start)(rest)
}

fn help() -> String {
    let width = TASKS.iter().map(|task| task.name.len() + task.arguments.len() + 1).max().unwrap_or(0);
    let line = |task: &Task| format!("\n  {:width$}  {}", format!("{} {}", task.name, task.arguments), task.about);
    let lines: String = TASKS.iter().map(line).collect();
    format!("usage: cargo xtask <task>\n\ntasks:{lines}")
}

/// Refuses the words given to a task that takes none.
fn no_words(task: &str, words: &[String]) -> Outcome {
    match words.first() {
        None => Ok(()),
        Some(word) => Err(format!("`cargo xtask {task}` takes no argument, but was given `{word}`")),
    }
}
