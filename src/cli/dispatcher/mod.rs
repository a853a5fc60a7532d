//! `ctrl-exec`: the dispatcher's verbs.

pub mod approve;
pub mod call;
pub mod cancel;
pub mod check_config;
pub mod deny;
pub mod edit_agent;
pub mod globals;
pub mod list_agents;
pub mod list_requests;
pub mod live;
pub mod pairing_mode;
pub mod pairing_prompt;
pub mod ping;
pub mod result;
pub mod results;
pub mod run;
pub mod setup_ca;
pub mod setup_ctrl_exec;
pub mod status;
pub mod unpair;
mod usual;
pub mod wait;

use std::ffi::OsString;

use clap::{Args as _, Command, CommandFactory as _, Parser, Subcommand};

pub use globals::Globals;

use super::{demo, out, parse};
use crate::exit::Exit;
use crate::failure::Failure;

/// Run named scripts on managed hosts over mutual TLS: no SSH, no shell.
#[derive(Debug, Parser)]
#[command(name = "ctrl-exec", version, infer_long_args = true, after_help = AFTER)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Option<Verb>,
}

const AFTER: &str = "Other roles of this file: serve-agent, agent VERB ... (also started as ctrl-exec-agent or cea).";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a script on one or more agents
    Run(run::Args),
    /// Show how far a run is
    Status(status::Args),
    /// Wait for the end of a run
    Wait(wait::Args),
    /// Show the results of a run, or what it prints until it ends
    Result(result::Args),
    /// End a run wherever it goes on
    Cancel(status::Args),
    /// Ask agents whether they are there
    Ping(ping::Args),
    /// List the registered agents
    ListAgents(list_agents::Args),
    /// Change how an agent is called and reached
    EditAgent(edit_agent::Args),
    /// Remove an agent from the registry
    Unpair(unpair::Args),
    /// Let agents pair: open the pairing port
    PairingMode(pairing_mode::Args),
    /// List the pairing requests that wait
    ListRequests(list_requests::Args),
    /// Approve a pairing request
    Approve(approve::Args),
    /// Deny a pairing request
    Deny(deny::Args),
    /// Make the private CA
    SetupCa(setup_ca::Args),
    /// Make this dispatcher's key and certificate
    SetupCtrlExec(setup_ctrl_exec::Args),
    /// Check the configuration as every verb does
    CheckConfig(check_config::Args),
    /// Show it all on this machine, in a temporary directory
    Demo(demo::Args),
}

/// Runs the dispatcher's command line under one of its names.
#[must_use]
pub fn start(name: &'static str, words: &[OsString]) -> Exit {
    let part = || usual(words).and_then(|part| parse::parse_part(name, part, words));
    let line: CommandLine = match usual::read(words).or_else(part).map_or_else(|| parse::parse(name, words), Ok) {
        Ok(line) => line,
        Err(exit) => return exit,
    };
    let Some(verb) = line.verb else {
        out::error(CommandLine::command().render_help().to_string());
        return Exit::Usage;
    };
    run(verb, &line.globals).unwrap_or_else(|failure| {
        out::error(format!("Error: {failure}"));
        failure.exit()
    })
}

/// The part of the command line that knows the verbs which are called over and over, if one of those is among the words.
fn usual(words: &[OsString]) -> Option<Command> {
    let (run, ping): (fn(_) -> _, fn(_) -> _) = (run::Args::augment_args, ping::Args::augment_args);
    let named = [("run", run), ("ping", ping)].into_iter().filter(|(verb, _)| words.iter().any(|word| word == verb));
    let verbs: Vec<Command> = named.map(|(verb, augment)| augment(Command::new(verb))).collect();
    let line = || Globals::augment_args(Command::new("ctrl-exec").infer_long_args(true));
    (!verbs.is_empty()).then(|| line().subcommands(verbs))
}

fn run(verb: Verb, globals: &Globals) -> Result<Exit, Failure> {
    match verb {
        Verb::Run(args) => run::run(args, globals),
        Verb::Status(args) => status::run(args.reqid(), globals),
        Verb::Wait(args) => wait::run(&args, globals),
        Verb::Result(args) => result::run(&args, globals),
        Verb::Cancel(args) => cancel::run(args.reqid(), globals),
        Verb::Ping(args) => ping::run(&args, globals),
        Verb::ListAgents(args) => list_agents::run(&args, globals),
        Verb::EditAgent(args) => edit_agent::run(&args, globals),
        Verb::Unpair(args) => unpair::run(&args, globals),
        Verb::PairingMode(args) => pairing_mode::run(&args, globals),
        Verb::ListRequests(args) => list_requests::run(&args, globals),
        Verb::Approve(args) => approve::run(&args, globals),
        Verb::Deny(args) => deny::run(&args, globals),
        Verb::SetupCa(args) => setup_ca::run(&args, globals),
        Verb::SetupCtrlExec(args) => setup_ctrl_exec::run(&args, globals),
        Verb::CheckConfig(args) => check_config::run(&args, globals),
        Verb::Demo(args) => demo::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn by_part(line: &str) -> Option<CommandLine> {
        let words = words(line);
        parse::parse_part("ctrl-exec", usual(&words)?, &words)
    }

    fn by_whole(line: &str) -> CommandLine {
        parse::parse("ctrl-exec", &words(line)).unwrap()
    }

    #[test]
    fn what_a_part_of_the_command_line_understands_means_the_same_to_the_whole() {
        for line in [
            "run web true",
            "--root /x run web db:7443 true -- -a --json run ping",
            "run --stream web true",
            "--keep run web true",
            "--no-s --json run web true",
            "run --async --username me --token=t web true",
            "--token run run run ping -- ping",
            "ping web --json --port 9",
            "--port 9 --json ping run",
        ] {
            let part = by_part(line).expect(line);
            assert_eq!(format!("{part:?}"), format!("{:?}", by_whole(line)), "{line}");
        }
    }

    #[test]
    fn everything_else_is_for_the_whole_command_line() {
        for line in [
            "status run",
            "--stream status run",
            "list-agents",
            "run web",
            "run web true --stream --no-stream",
            "run --help",
            "--help run",
            "help run",
            "--version run",
            "ping",
            "ping --nonsense web",
            "--timeout 9 run web true",
        ] {
            assert!(by_part(line).is_none(), "{line}");
        }
    }
}
