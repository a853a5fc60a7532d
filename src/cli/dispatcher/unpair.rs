//! `unpair`.

use super::{Globals, edit_agent};
use crate::cli::out;
use crate::dispatcher::edit;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::name::AgentName;

/// Which agent.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registered name
    #[arg(value_name = "NAME")]
    name: AgentName,
}

/// Removes a record. The certificate stays valid, which is said.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let record = edit::unpair(&site, &args.name).map_err(|error| edit_agent::failed("Unpair failed", error))?;
    let expiry = if record.expiry.is_empty() { "unknown" } else { &record.expiry };
    out::line(format!("Unregistered '{}'.", args.name));
    out::line(format!("WARNING: Agent certificate remains valid until: {expiry}"));
    out::line("Decommission the agent promptly or add its serial to the revocation list.");
    if let Some(serial) = &record.cert_serial {
        out::line(format!("Its serial is: {serial}"));
    }
    Ok(Exit::Success)
}
