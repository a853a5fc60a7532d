//! From words to a parsed command line, with our own exit statuses.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Command, Parser};

use super::out;
use crate::exit::Exit;

/// Parses the words behind the role. `Err` is how the process ends: help and version are successes, anything wrong is
/// [`Exit::Usage`].
pub fn parse<T: Parser>(name: &'static str, words: &[OsString]) -> Result<T, Exit> {
    let command = T::command().name(name).bin_name(name);
    let argv = std::iter::once(OsString::from(name)).chain(verb_first(&command, words));
    let parsed = command.try_get_matches_from(argv).and_then(|matches| T::from_arg_matches(&matches));
    parsed.map_err(|error| {
        let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        // clap chooses standard output for what was asked for and standard error for the rest.
        let printed = error.print();
        if asked {
            out::keep(printed);
        }
        if asked { Exit::Success } else { Exit::Usage }
    })
}

/// As [`parse`], by a part of the command line that lacks most verbs: building them all takes a tenth of what a whole run
/// does. Nothing if that part does not understand the words, or is asked for help; the whole knows what to say then.
///
/// **Invariant:** a part is the whole without some of its verbs. What it understands means the same to the whole.
#[must_use]
pub fn parse_part<T: Parser>(name: &'static str, part: Command, words: &[OsString]) -> Option<T> {
    let argv: Vec<OsString> = std::iter::once(OsString::from(name)).chain(verb_first(&part, words)).collect();
    let matches = part.name(name).bin_name(name).try_get_matches_from(argv).ok()?;
    T::from_arg_matches(&matches).ok()
}

/// A verb's options may stand before it, as the original's could: they are moved behind it. Options that are known
/// without a verb stay where they are.
fn verb_first(command: &Command, words: &[OsString]) -> Vec<OsString> {
    let (mut front, mut behind) = (Vec::new(), Vec::new());
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let text = word.to_str().unwrap_or_default();
        if command.find_subcommand(text).is_some() {
            front.push(word.clone());
            front.append(&mut behind);
            break;
        }
        let Some(option) = text.strip_prefix("--").filter(|option| !option.is_empty()) else {
            // Not for us to judge.
            return words.to_vec();
        };
        let own = value_expected(command, option);
        let foreign = || command.get_subcommands().find_map(|verb| value_expected(verb, option));
        let place = if own.is_some() { &mut front } else { &mut behind };
        place.push(word.clone());
        if own.or_else(foreign).unwrap_or(false) && !option.contains('=') {
            place.extend(rest.next().cloned());
        }
    }
    front.into_iter().chain(behind).chain(rest.cloned()).collect()
}

/// Whether a value belongs to this option, which may be abbreviated; nothing if the command does not know it.
fn value_expected(command: &Command, option: &str) -> Option<bool> {
    let name = option.split('=').next().unwrap_or(option);
    let mut known = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg.get_action().takes_values())));
    known.find(|(long, _)| long.starts_with(name)).map(|(_, takes)| takes)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[arg(long, global = true)]
        json: bool,
        #[arg(long, global = true)]
        port: Option<u16>,
        #[command(subcommand)]
        _verb: Verb,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Verb {
        Pair {
            #[arg(long)]
            background: bool,
            #[arg(long)]
            timeout: Option<u16>,
            words: Vec<String>,
        },
    }

    #[test]
    fn options_of_a_verb_may_stand_before_it() {
        let moved = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let moved: Vec<String> =
                verb_first(&Line::command(), &words).into_iter().map(|word| word.into_string().unwrap()).collect();
            moved.join(" ")
        };
        for (line, want) in [
            ("--background --timeout 9 pair x", "pair --background --timeout 9 x"),
            ("--port 9 --time 9 --json pair x", "--port 9 --json pair --time 9 x"),
            ("--timeout=9 pair -- --json", "pair --timeout=9 -- --json"),
            ("--timeout pair pair", "pair --timeout pair"),
            ("--port 9 pair --timeout 3", "--port 9 pair --timeout 3"),
            ("--nonsense pair", "pair --nonsense"),
            ("-V pair", "-V pair"),
            ("x --timeout 3", "x --timeout 3"),
            ("--version", "--version"),
        ] {
            assert_eq!(moved(line), want, "{line}");
        }
    }
}
