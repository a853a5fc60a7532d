//! Which role a process plays: by its first word where that names a role, else by the name it was started under, else
//! the dispatcher. A copy of the file under any other name still works by its first word.

use std::ffi::OsString;
use std::path::Path;

/// A role of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The control host's command line, and the name it shows in its help.
    Dispatcher(&'static str),
    /// The managed host's command line.
    Agent,
    /// The root executor, with a verb.
    Executor,
    /// The root executor as a service, with a default for everything.
    ExecutorService,
    /// An executor that an agent has started, with the agent's rights.
    PrivateExecutor,
    /// An executor that an agent has started, with root's rights.
    OwnExecutor,
    /// A role of the original that this version does not have. It must not be taken for the dispatcher.
    Missing(String),
}

/// The role of an argument vector, and the words behind it.
#[must_use]
pub fn of(argv: &[OsString]) -> (Role, Vec<OsString>) {
    let words = argv.get(1..).unwrap_or_default();
    let rest = || words.get(1..).unwrap_or_default().to_vec();
    match words.first().and_then(|word| word.to_str()) {
        Some("agent" | "ctrl-exec-agent") => return (Role::Agent, rest()),
        Some("dispatcher") => return (Role::Dispatcher("ctrl-exec"), rest()),
        // One word that serves, for containers.
        Some("serve-agent") => return (Role::Agent, std::iter::once(OsString::from("serve")).chain(rest()).collect()),
        // The agent's own children, whatever name the file has.
        Some("serve-private") => return (Role::PrivateExecutor, rest()),
        Some("serve-own") => return (Role::OwnExecutor, rest()),
        Some("serve-executor") => return (Role::ExecutorService, rest()),
        Some(word @ ("serve-api" | "mcp")) => return (Role::Missing(word.to_owned()), rest()),
        _ => {}
    }
    let name = argv.first().and_then(|name| Path::new(name).file_name()).and_then(|name| name.to_str());
    let role = match name {
        Some("ctrl-exec-agent" | "cea") => Role::Agent,
        Some("ctrl-exec-dispatcher" | "ced") => Role::Dispatcher("ctrl-exec-dispatcher"),
        Some("ctrl-exec-exec") => Role::Executor,
        Some(name @ ("ctrl-exec-api" | "ctrl-exec-mcp")) => Role::Missing(name.to_owned()),
        _ => Role::Dispatcher("ctrl-exec"),
    };
    (role, words.to_vec())
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
        let dispatcher = Role::Dispatcher("ctrl-exec");
        assert_eq!(role(&["ctrl-exec-agent", "dispatcher", "ping"]), (dispatcher, vec!["ping".into()]));
        assert_eq!(role(&["/tmp/release-x86_64", "agent", "serve"]), (Role::Agent, vec!["serve".into()]));
        assert_eq!(role(&["x", "serve-agent", "--root", "/r"]).1, ["serve", "--root", "/r"]);
    }

    #[test]
    fn every_documented_name_has_its_role() {
        for name in ["ctrl-exec-agent", "/usr/bin/cea"] {
            assert_eq!(role(&[name, "serve"]).0, Role::Agent, "{name}");
        }
        for name in ["ctrl-exec-dispatcher", "/usr/bin/ced"] {
            assert_eq!(role(&[name, "ping"]).0, Role::Dispatcher("ctrl-exec-dispatcher"), "{name}");
        }
        assert_eq!(role(&["/usr/sbin/ctrl-exec-exec", "serve"]), (Role::Executor, vec!["serve".into()]));
        assert_eq!(role(&["ctrl-exec", "serve-executor"]).0, Role::ExecutorService);
        for name in ["ctrl-exec", "anything", ""] {
            assert_eq!(role(&[name, "ping"]).0, Role::Dispatcher("ctrl-exec"), "{name}");
        }
        assert_eq!(role(&[]).0, Role::Dispatcher("ctrl-exec"));
    }

    #[test]
    fn a_role_that_is_not_there_is_never_taken_for_another() {
        for argv in [&["ctrl-exec-api"][..], &["/usr/bin/ctrl-exec-mcp", "serve"], &["x", "serve-api"], &["x", "mcp"]] {
            assert!(matches!(role(argv).0, Role::Missing(_)), "{argv:?}");
        }
    }
}
