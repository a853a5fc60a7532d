//! The executor's process, started by `serve` with the control socket as standard input.

use std::path::PathBuf;

use crate::audit::{Ident, Logger, Sockets};
use crate::conf::Root;
use crate::executor::{self, Policy};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::{descriptors, process};

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
    let load = || Policy::load(&args.config, &args.allowlist, &root);
    let served = executor::serve_private(control, load, |event| log.emit(event.line()));
    served.map(|()| Exit::Success).map_err(|error| Failure::new(Exit::Config, error))
}
