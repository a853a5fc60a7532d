//! `setup-ca`.

use super::Globals;
use crate::cli::out;
use crate::dispatcher::setup::{self, SetupError};
use crate::exit::Exit;
use crate::failure::Failure;

/// No arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Makes the CA: in the configured `ca_dir`, or in the default place where there is no configuration yet.
pub fn run(_: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let dir = if globals.config().exists() {
        globals.site()?.settings.ca_dir.to_path_buf()
    } else {
        globals.root().path("/etc/ctrl-exec")
    };
    out::line("Setting up dispatcher CA...");
    let files = setup::setup_ca(&dir).map_err(failed)?;
    out::line("CA created:");
    out::line(format!("  Key:  {}", files.key.display()));
    out::line(format!("  Cert: {}", files.cert.display()));
    out::line("Keep ca.key secure - it never leaves this host.");
    Ok(Exit::Success)
}

/// How the process ends when a setup fails.
#[must_use]
pub fn failed(error: SetupError) -> Failure {
    match error {
        SetupError::File(file) if file.is_permission_denied() => {
            Failure::new(Exit::Permission, file).hint("run it as root, or with sudo")
        }
        SetupError::Store(store) => super::approve::store_failure(store),
        SetupError::Site(site) => super::globals::failed(site),
        missing @ SetupError::NoCa(_) => {
            Failure::new(Exit::Config, missing).hint("make the CA first: ctrl-exec setup-ca")
        }
        exists @ SetupError::Exists(_) => Failure::new(Exit::Failed, exists)
            .hint("to start over, move the old CA away by hand; every agent must then be paired again"),
        other => Failure::new(Exit::Unavailable, other),
    }
}
