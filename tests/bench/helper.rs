//! This program as a small process of its own, for what must not happen in the one that measures.

use std::process::{Child, Command, Stdio};

use crate::{calls, hello, spawner, steps, strangers, tls_pipe};

/// What the first word of a helper begins with.
const MARK: &str = "helper:";

/// Does a helper's work, if that is what the words ask for.
pub(crate) fn run(words: &[String]) -> bool {
    let mut words = words.iter().map(String::as_str);
    let Some(name) = words.next().and_then(|word| word.strip_prefix(MARK)) else { return false };
    let rest: Vec<&str> = words.collect();
    match name {
        "calls" => calls::help(&rest),
        "hello" => hello::help(&rest),
        "steps" => steps::help(&rest),
        "spawner" => spawner::help(&rest),
        "strangers" => strangers::help(&rest),
        "source" => tls_pipe::source(&rest),
        "sink" => tls_pipe::sink(&rest),
        _ => unreachable!("no helper of that name"),
    }
    true
}

/// Starts a helper, with pipes on its standard input and output.
pub(crate) fn start(name: &str, words: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(format!("{MARK}{name}")).args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}
