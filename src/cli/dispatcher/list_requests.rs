//! stub
use super::Globals;
use crate::exit::Exit;
use crate::failure::Failure;

/// Args.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Run.
pub fn run(_: &Args, _: &Globals) -> Result<Exit, Failure> {
    Ok(Exit::Bug)
}
