//! `edit-agent`.

use std::net::IpAddr;

use serde_json::Value;

use super::Globals;
use crate::cli::out;
use crate::dispatcher::edit::{self, Changes};
use crate::exit::Exit;
use crate::failure::Failure;
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
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// Serving port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    agent_port: Option<u16>,
    /// Find it by its name or by its address
    #[arg(long, value_name = "ip|hostname", value_parser = lookup)]
    lookup_by: Option<LookupBy>,
}

/// Reads `ip` or `hostname`.
pub fn lookup(text: &str) -> Result<LookupBy, String> {
    LookupBy::parse(text).ok_or_else(|| "--lookup-by must be 'ip' or 'hostname'".to_owned())
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
    let record = edit::edit(&site, &args.name, &changes)
        .map_err(|error| Failure::new(Exit::Failed, format!("Edit failed: {error}")))?;
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
