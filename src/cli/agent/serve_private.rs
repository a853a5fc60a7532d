//! The executor's process, started by `serve` with the control socket as standard input.

use std::path::PathBuf;

use crate::audit::{Event, Ident, Level, Logger, Sockets};
use crate::conf::{Root, Source, agent};
use crate::executor::{self, ExecEvent, Policy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::{descriptors, file, process};

/// Largest configuration file, in bytes.
const FILE: usize = 1024 * 1024;

/// Where the configuration is, as the agent reads it.
#[derive(Debug, clap::Args)]
pub struct Args {
    config: PathBuf,
    allowlist: PathBuf,
    prefix: PathBuf,
    /// The limit on descriptors that the agent was started with.
    descriptors: Option<u64>,
}

/// Serves the agent at the other end of standard input.
pub fn run(args: &Args) -> Result<Exit, Failure> {
    let root = Root::new(Some(args.prefix.clone()));
    let log = Logger::open(Ident::Executor, Sockets::new(|place| root.path(place)));
    let control = process::control_from_stdin().map_err(|error| {
        Failure::new(Exit::Usage, error).hint("this role is started by 'ctrl-exec-agent serve', not by hand")
    })?;
    if let Some(limit) = args.descriptors {
        descriptors::put_back(limit).map_err(|error| Failure::new(Exit::Unavailable, error))?;
    }
    let audit = |event: &ExecEvent<'_>| log.emit(line(event));
    let served = executor::serve_private(control, || policy(args, &root), audit);
    served.map(|()| Exit::Success).map_err(|error| Failure::new(Exit::Config, error))
}

fn policy(args: &Args, root: &Root) -> Result<Policy, String> {
    let read = |path: &PathBuf| match file::read_bounded(path, FILE) {
        Ok(bytes) => Ok(Source::new(path, bytes)),
        Err(error) => Err(error.to_string()),
    };
    let (config, scripts) = (read(&args.config)?, read(&args.allowlist)?);
    let loaded = agent::load(&config, &scripts, root).map_err(|errors| errors.to_string())?;
    Ok(Policy::of(&loaded.settings, &loaded.allowlist))
}

/// The executor's own lines; arguments and output are never part of them.
fn line(event: &ExecEvent<'_>) -> Event {
    match event {
        ExecEvent::Ended { order, profile, pid, outcome } => Event::new(Level::Info, "exec")
            .field("EXIT", outcome.exit())
            .maybe("PID", *pid)
            .maybe("PROFILE", *profile)
            .maybe("REASON", outcome.reason())
            .maybe("REQID", order.map(|order| order.request().clone()))
            .maybe("SCRIPT", order.map(|order| order.script().clone())),
        ExecEvent::StatusLost { request, reason } => {
            Event::new(Level::Error, "exec-status-lost").field("REASON", reason).field("REQID", request)
        }
        ExecEvent::Lingering { request } => Event::new(Level::Warning, "exec-lingering").field("REQID", request),
        ExecEvent::Ignored { reason } => Event::new(Level::Warning, "exec-ignored").field("REASON", reason),
        ExecEvent::Reloaded => Event::new(Level::Info, "exec-reload").field("RESULT", "ok"),
        ExecEvent::ReloadFailed { text } => Event::new(Level::Error, "exec-reload").field("ERROR", text),
    }
}
