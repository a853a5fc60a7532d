//! `ctrl-exec-agent`: the agent's verbs.

mod certificate_check;
pub mod explain;
#[cfg(test)]
mod explain_property;
mod explain_text;
pub mod globals;
mod kernel_check;
mod list_check;
pub mod pairing_status;
mod port_check;
pub mod prepare;
mod profile_check;
pub mod remedy;
pub mod request_pairing;
mod running;
mod script_check;
pub mod self_check;
pub mod self_ping;
pub mod serve;
mod serving;
mod state_check;
mod unconfined;
mod whose;

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use globals::Globals;

use super::{out, parse};
use crate::exit::Exit;
use crate::failure::Failure;

/// Let paired dispatchers run the scripts that this host's allowlist names.
#[derive(Debug, Parser)]
#[command(name = "ctrl-exec-agent", version, infer_long_args = true)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve dispatchers until told to stop
    Serve(serve::Args),
    /// Ask a dispatcher to be paired with this host
    RequestPairing(request_pairing::Args),
    /// Say whether this host is paired, and until when
    PairingStatus,
    /// Check what serving would use, and say what needs hands
    SelfCheck(self_check::Args),
    /// Say what would become of a request, gate by gate; nothing is run
    Explain(explain::Args),
    /// Call the running agent as a peer would
    SelfPing,
    /// Exit 0 if certificate, key and CA are there
    #[command(hide = true)]
    Paired,
    /// As root, before each start: put a renewed certificate in place
    #[command(hide = true)]
    PromoteCert,
    /// Exit 0 if a renewed certificate waits for a restart
    #[command(hide = true)]
    CertStaged,
}

/// Runs the agent's command line. No verb is a question, never a start.
#[must_use]
pub fn start(words: &[OsString]) -> Exit {
    // Wherever it stands, as ever.
    let version = OsString::from("--version");
    let asked = words.iter().take_while(|word| *word != "--").any(|word| *word == version);
    let line: CommandLine =
        match parse::parse("ctrl-exec-agent", if asked { std::slice::from_ref(&version) } else { words }) {
            Ok(line) => line,
            Err(exit) => return exit,
        };
    let Some(verb) = line.verb else {
        out::text(&CommandLine::command().render_help().to_string());
        return Exit::Success;
    };
    run(&verb, &line.globals).unwrap_or_else(|failure| {
        out::error(format!("Error: {failure}"));
        failure.exit()
    })
}

fn run(verb: &Verb, globals: &Globals) -> Result<Exit, Failure> {
    match verb {
        Verb::Serve(args) => serve::run(args, globals),
        Verb::RequestPairing(args) => request_pairing::run(args, globals),
        Verb::PairingStatus => pairing_status::run(globals),
        Verb::SelfCheck(args) => self_check::run(args, globals),
        Verb::Explain(args) => explain::run(args, globals),
        Verb::SelfPing => self_ping::run(globals),
        Verb::Paired => Ok(pairing_status::paired(globals)),
        Verb::PromoteCert => Ok(prepare::promote(globals)),
        Verb::CertStaged => Ok(prepare::staged(globals)),
    }
}
