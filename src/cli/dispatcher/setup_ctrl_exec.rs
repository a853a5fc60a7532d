//! `setup-ctrl-exec`.

use std::io::BufRead as _;

use super::{Globals, setup_ca};
use crate::cli::out;
use crate::dispatcher::setup;
use crate::exit::Exit;
use crate::failure::Failure;

/// No arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Makes this dispatcher's key and certificate; asks first where agents trust the old one.
pub fn run(_: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let existing = setup::existing(&site).map_err(setup_ca::failed)?;
    if existing.certificate && existing.agents > 0 && !confirmed(existing.agents) {
        out::line("Aborted.");
        return Ok(Exit::Success);
    }
    if existing.certificate && existing.agents == 0 {
        out::line("Replacing the existing dispatcher cert; no agents are registered.");
    }
    out::line("Generating dispatcher certificate...");
    setup::setup_ctrl_exec(&site).map_err(setup_ca::failed)?;
    out::line("dispatcher cert created:");
    out::line(format!("  Key:  {}", site.settings.key.display()));
    out::line(format!("  Cert: {}", site.settings.cert.display()));
    out::line("Agents that were paired before must be paired again.");
    Ok(Exit::Success)
}

fn confirmed(agents: usize) -> bool {
    let plural = if agents == 1 { "agent" } else { "agents" };
    out::line("WARNING: Existing dispatcher cert found.");
    out::line(format!("  {agents} registered {plural} will require re-pairing after this operation."));
    out::line("  They trust the serial of the present certificate and will refuse the new one.");
    out::line("  To renew the certificate without re-pairing, keep it until it can be rotated.");
    out::line("");
    out::text("Proceed? [y/N]: ");
    let mut answer = String::new();
    // No answer is no.
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y")
}
