//! `edit-agent`.

use std::net::IpAddr;

use serde_json::Value;

use super::Globals;
use crate::cli::out;
use crate::dispatcher::edit::{self, Changes, EditError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::causes;
use crate::wire::name::AgentName;
use crate::wire::pair::LookupBy;

/// Which agent, and what to change.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registered name
    #[arg(value_name = "NAME")]
    name: AgentName,
    /// New name
    #[arg(long, value_name = "NAME")]
    rename: Option<AgentName>,
    /// Address to dial with --lookup-by ip
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    ip: Option<IpAddr>,
    /// Serving port
    #[arg(long, value_name = "PORT", value_parser = port)]
    agent_port: Option<u16>,
    /// Find it by its name or by its address
    #[arg(long, value_name = "ip|hostname", value_parser = lookup)]
    lookup_by: Option<LookupBy>,
}

/// Reads an address.
pub fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "--ip must be an IPv4 or IPv6 address".to_owned())
}

/// Reads a port to dial.
pub fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| "--agent-port must be a port number (1-65535)".to_owned())
}

/// Reads `ip` or `hostname`.
pub fn lookup(text: &str) -> Result<LookupBy, String> {
    LookupBy::parse(text).ok_or_else(|| "--lookup-by must be 'ip' or 'hostname'".to_owned())
}

/// A change that was not made: what, why, and who could make it.
#[must_use]
pub fn failed(what: &str, error: EditError) -> Failure {
    let text = format!("{what}: {}", causes::on_one_line(&error));
    match error {
        EditError::Store(store) if store.is_permission_denied() => {
            Failure::new(Exit::Permission, text).hint("run it with sudo, or as a member of the group ctrl-exec")
        }
        EditError::Store(_) => Failure::new(Exit::Unavailable, text),
        EditError::Missing(_) => Failure::new(Exit::Failed, text).hint("'ctrl-exec list-agents' shows the names"),
        EditError::Taken(_) => {
            Failure::new(Exit::Failed, text).hint("choose another name, or remove that agent: ctrl-exec unpair NAME")
        }
    }
}

/// Changes a record.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let changes =
        Changes { rename: args.rename.clone(), ip: args.ip, port: args.agent_port, lookup_by: args.lookup_by };
    if changes.rename.is_none() && changes.ip.is_none() && changes.port.is_none() && changes.lookup_by.is_none() {
        let text = "Nothing to change. Pass at least one of --rename, --ip, --agent-port, --lookup-by.";
        return Err(Failure::new(Exit::Usage, text));
    }
    let site = globals.site()?;
    let record = edit::edit(&site, &args.name, &changes).map_err(|error| failed("Edit failed", error))?;
    if globals.json {
        out::json(&serde_json::to_value(&record).unwrap_or(Value::Null));
        return Ok(Exit::Success);
    }
    out::line(format!("Updated agent '{}'.", record.hostname));
    if record.hostname != args.name {
        out::line(format!("  renamed from: {}", args.name));
    }
    out::line(format!("  ip:        {}", record.ip));
    out::line(format!("  port:      {}", record.port));
    out::line(format!("  lookup_by: {}", record.lookup_by.0.as_str()));
    Ok(Exit::Success)
}
