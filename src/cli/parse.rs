//! From words to a parsed command line, with our own exit statuses.

use std::ffi::OsString;

use clap::Parser;
use clap::error::ErrorKind;

use super::out;
use crate::exit::Exit;

/// Parses the words behind the role. `Err` is how the process ends: help and version are successes, anything wrong is
/// [`Exit::Usage`].
pub fn parse<T: Parser>(name: &'static str, words: &[OsString]) -> Result<T, Exit> {
    let argv = std::iter::once(OsString::from(name)).chain(words.iter().cloned());
    let command = T::command().name(name).bin_name(name);
    let parsed = command.try_get_matches_from(argv).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        // clap chooses standard output for what was asked for and standard error for the rest.
        if error.print().is_err() {
            out::error(error.to_string());
        }
        if asked { Exit::Success } else { Exit::Usage }
    })
}
