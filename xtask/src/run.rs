//! Subprocesses: one way to start them, with errors that name the whole command.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Output};

use crate::Outcome;

/// A command being put together.
pub(crate) struct Run {
    command: Command,
}

impl Run {
    /// The program `name`, with this process's environment less what `cargo run` put there for `xtask` itself: a
    /// nested cargo would take the one for a change and the other for the loader's path of its children.
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(name);
        for (key, _) in std::env::vars_os() {
            if belongs_to_cargo_run(&key) {
                command.env_remove(key);
            }
        }
        Self { command }
    }

    /// The cargo that runs this tool.
    pub(crate) fn cargo() -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    pub(crate) fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.command.arg(word);
        self
    }

    pub(crate) fn args<W: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.command.args(words);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub(crate) fn without(mut self, keys: &[&str]) -> Self {
        for key in keys {
            self.command.env_remove(key);
        }
        self
    }

    pub(crate) fn dir(mut self, path: &Path) -> Self {
        self.command.current_dir(path);
        self
    }

    /// Runs it on this process's terminal. An exit status other than 0 is an error.
    pub(crate) fn go(mut self) -> Outcome {
        let status = self.command.status().map_err(|why| self.not_started(&why))?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.line())) }
    }

    /// Runs it and hands back what it printed to standard output, without the blanks around it.
    pub(crate) fn text(mut self) -> Outcome<String> {
        let Output { status, stdout, stderr } = self.command.output().map_err(|why| self.not_started(&why))?;
        let said = String::from_utf8_lossy(&stdout).trim().to_owned();
        if status.success() {
            return Ok(said);
        }
        Err(format!("{} ended with {status}\n{said}\n{}", self.line(), String::from_utf8_lossy(&stderr).trim()))
    }

    fn not_started(&self, why: &std::io::Error) -> String {
        format!("cannot start {}: {why}", self.line())
    }

    fn line(&self) -> String {
        let words: Vec<String> = std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        format!("`{}`", words.join(" "))
    }
}

fn belongs_to_cargo_run(key: &OsString) -> bool {
    let key = key.to_string_lossy();
    key.starts_with("CARGO_PKG_") || key.starts_with("CARGO_MANIFEST_") || key == "LD_LIBRARY_PATH"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_words_and_what_it_said() {
        let why = Run::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).text().unwrap_err();
        assert!(why.contains("`sh -c"), "{why}");
        assert!(why.contains("exit status: 3") && why.contains("out") && why.contains("err"), "{why}");
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let why = Run::new("no-such-program-here").go().unwrap_err();
        assert!(why.contains("no-such-program-here"), "{why}");
    }
}
