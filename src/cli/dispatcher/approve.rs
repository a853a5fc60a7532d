//! `approve ID`.

use std::net::IpAddr;
use std::time::Duration;

use super::{Globals, edit_agent, globals};
use crate::cli::out;
use crate::dispatcher::pairing::advice::advice;
use crate::dispatcher::pairing::decide::{self, Approved, DecideError, Delivery, Overrides};
use crate::dispatcher::pairing::sign::SignError;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::store::StoreError;
use crate::store::record::AgentRecord;
use crate::wire::pair::LookupBy;

/// How long the agent has to take its certificate before this command stops waiting.
const PATIENCE: Duration = Duration::from_secs(15);

/// The request, and what to register otherwise than the agent asked.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of the request
    #[arg(value_name = "ID")]
    id: String,
    /// How to find the agent: by its registered name or by its address
    #[arg(long, value_name = "ip|hostname", value_parser = edit_agent::lookup)]
    lookup_by: Option<LookupBy>,
    /// Address to register
    #[arg(long, value_name = "ADDRESS", value_parser = edit_agent::address)]
    ip: Option<IpAddr>,
    /// Port to register
    #[arg(long, value_name = "PORT", value_parser = edit_agent::port)]
    agent_port: Option<u16>,
}

/// Approves a request, and waits until its agent is registered; 2 if the agent takes its time.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let overrides = Overrides { lookup_by: args.lookup_by, ip: args.ip, agent_port: args.agent_port };
    let site = globals.site()?;
    let approved = decide::approve(&site, &args.id, overrides).map_err(failure)?;
    out::line(format!("Approved '{}' ({}).", approved.record.hostname, approved.request.id));
    if let Some(old) = &approved.replaces {
        out::line(format!("  {}", replaces(old)));
    }
    match decide::delivered(&site, &approved, PATIENCE).map_err(store_failure)? {
        Delivery::Registered(record) => {
            registered(&approved, &record).iter().for_each(out::line);
            Ok(Exit::Success)
        }
        Delivery::Waiting => {
            out::error("The agent has not taken its certificate yet: its operator has to confirm the code there.");
            out::error("It is registered as soon as it does, while pairing mode is on; see: ctrl-exec list-agents");
            Ok(Exit::Pending)
        }
        Delivery::NotTaken => {
            let error = "the agent did not take the certificate: nothing was registered";
            Err(Failure::new(Exit::Failed, error).hint("the log says why; let the agent ask again"))
        }
    }
}

/// What was registered, exactly, and how to change it.
pub(super) fn registered(approved: &Approved, record: &AgentRecord) -> Vec<String> {
    let mut lines = vec![
        "  Certificate delivered.".to_owned(),
        format!(
            "  Registered:  {}   lookup_by={}   addr={}",
            record.hostname,
            record.lookup_by.0.as_str(),
            record.target(record.port)
        ),
    ];
    let commands = advice(&approved.request).commands(record);
    if !commands.is_empty() {
        lines.push("  If it cannot be reached there:".to_owned());
        lines.extend(commands.iter().map(|command| format!("    {command}")));
    }
    lines
}

/// Whom an approval replaces.
pub(super) fn replaces(old: &AgentRecord) -> String {
    format!("REPLACES the registered agent '{}' (paired {}, addr={})", old.hostname, old.paired, old.target(old.port))
}

/// How a process ends that could not give an answer.
pub(super) fn failure(error: DecideError) -> Failure {
    match error {
        DecideError::Store(error) => store_failure(error),
        DecideError::Site(error) | DecideError::Sign(SignError::Site(error)) => globals::failed(error),
        DecideError::Sign(SignError::Serial(error)) if error.is_permission_denied() => {
            Failure::new(Exit::Permission, error).hint("signing needs the CA's files: run it as root or with sudo")
        }
        DecideError::Sign(_) => Failure::new(Exit::Unavailable, error),
        DecideError::NoSession(_) => Failure::new(Exit::Unavailable, error)
            .hint("start one with 'ctrl-exec pairing-mode', and let the agent ask again"),
        DecideError::Unknown(_) => Failure::new(Exit::Failed, error).hint("'ctrl-exec list-requests' shows what waits"),
        DecideError::Answered(_) | DecideError::Csr { .. } => Failure::new(Exit::Failed, error),
    }
}

/// How a process ends that cannot use queue or registry.
pub(super) fn store_failure(error: StoreError) -> Failure {
    if error.is_permission_denied() {
        return Failure::new(Exit::Permission, error).hint("run it with sudo, or as a member of the group ctrl-exec");
    }
    Failure::new(Exit::Unavailable, error)
}
