//! Starts the role that a process plays. Which that is, [`crate::cli::role`] decides.

use std::ffi::OsString;

use crate::cli;
use crate::cli::out;
pub use crate::cli::role::{Role, of};
use crate::exit::Exit;

/// Starts the role that the argument vector names. What it could not show counts in how it ends.
#[must_use]
pub fn start(argv: &[OsString]) -> Exit {
    let (role, words) = of(argv);
    out::end(match role {
        Role::Dispatcher(name) => cli::dispatcher::start(name, &words),
        Role::Agent => cli::agent::start(&words),
        Role::Executor => cli::executor::start(&words),
        Role::ExecutorService => cli::executor::service(&words),
        Role::PrivateExecutor => cli::executor::child::private(&words),
        Role::OwnExecutor => cli::executor::child::own(&words),
        Role::Missing(name) => missing(&name, &words),
    })
}

/// Says the version where that was the question, and else that the role is not there.
fn missing(name: &str, words: &[OsString]) -> Exit {
    if words.iter().any(|word| word == "--version" || word == "-V") {
        out::line(format!("{name} {}", env!("CARGO_PKG_VERSION")));
        return Exit::Success;
    }
    let text = format!("'{name}' is a role that version {} does not have", env!("CARGO_PKG_VERSION"));
    if words.iter().any(|word| word == "--help" || word == "-h") {
        out::line(text);
        return Exit::Success;
    }
    out::error(format!("error: {text}\nhint: 'ctrl-exec --help' and 'ctrl-exec-agent --help' list what it has"));
    Exit::Unavailable
}
