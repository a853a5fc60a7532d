//! `deny ID`.

use super::{Globals, approve};
use crate::cli::out;
use crate::dispatcher::pairing::decide;
use crate::exit::Exit;
use crate::failure::Failure;

/// The request.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Id of the request
    #[arg(value_name = "ID")]
    id: String,
}

/// Denies a request.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let request = decide::deny(&site, &args.id).map_err(approve::failure)?;
    out::line(format!("Denied request '{}'.", request.id));
    Ok(Exit::Success)
}
