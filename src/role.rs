//! Which role a process plays: by its first word where that names a role, else by the name it was started under, else
//! the dispatcher. A copy of the file under any other name still works by its first word.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::cli;

/// A role of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The control host's command line.
    Dispatcher,
    /// The managed host's command line.
    Agent,
}

/// The role of an argument vector, and the words behind it.
#[must_use]
pub fn of(argv: &[OsString]) -> (Role, Vec<OsString>) {
    let words = argv.get(1..).unwrap_or_default();
    let rest = || words.get(1..).unwrap_or_default().to_vec();
    match words.first().and_then(|word| word.to_str()) {
        Some("agent" | "ctrl-exec-agent") => return (Role::Agent, rest()),
        Some("dispatcher") => return (Role::Dispatcher, rest()),
        // One word that serves, for containers.
        Some("serve-agent") => return (Role::Agent, std::iter::once(OsString::from("serve")).chain(rest()).collect()),
        // The agent's own private child, whatever name the file has.
        Some("serve-private") => return (Role::Agent, words.to_vec()),
        _ => {}
    }
    let name = argv.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    let role = match name {
        Some("ctrl-exec-agent" | "cea") => Role::Agent,
        _ => Role::Dispatcher,
    };
    (role, words.to_vec())
}

/// Starts the role that the argument vector names.
#[must_use]
pub fn start(argv: &[OsString]) -> ExitCode {
    let (role, words) = of(argv);
    match role {
        Role::Dispatcher => cli::dispatcher::start(&words),
        Role::Agent => cli::agent::start(&words),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(argv: &[&str]) -> (Role, Vec<String>) {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let (role, words) = of(&argv);
        (role, words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn the_first_word_wins_over_the_name() {
        assert_eq!(role(&["ctrl-exec-agent", "dispatcher", "ping"]), (Role::Dispatcher, vec!["ping".into()]));
        assert_eq!(role(&["/tmp/release-x86_64", "agent", "serve"]), (Role::Agent, vec!["serve".into()]));
        assert_eq!(role(&["x", "serve-agent", "--root", "/r"]).1, ["serve", "--root", "/r"]);
    }

    #[test]
    fn every_documented_name_has_its_role() {
        for name in ["ctrl-exec-agent", "/usr/bin/cea"] {
            assert_eq!(role(&[name, "serve"]).0, Role::Agent, "{name}");
        }
        for name in ["ctrl-exec", "ctrl-exec-dispatcher", "/usr/bin/ced", "anything", ""] {
            assert_eq!(role(&[name, "ping"]).0, Role::Dispatcher, "{name}");
        }
        assert_eq!(role(&[]).0, Role::Dispatcher);
    }
}
