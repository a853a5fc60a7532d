//! Programs that run to their end, within a deadline.

use std::io::{Read, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use nix::sys::stat::{Mode, umask};
use serde_json::Value;

use super::audit::{self, Line};
use super::{DEADLINE, binary};

/// What a program left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit status; -1 where a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Demands an exit status.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// The only result of a `--json` answer.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let json = self.json();
        assert_eq!(json["results"].as_array().map(Vec::len), Some(1), "{json}");
        json["results"][0].clone()
    }

    /// The audit lines of this kind on standard error.
    pub(crate) fn lines(&self, action: &str) -> Vec<Line> {
        audit::lines(&self.stderr).into_iter().filter(|line| line.action() == action).collect()
    }

    /// Standard error without audit lines.
    pub(crate) fn messages(&self) -> String {
        let plain = |line: &&str| audit::Line::parse(line).is_none();
        self.stderr.lines().filter(plain).flat_map(|line| [line, "\n"]).collect()
    }
}

/// What tests write has the modes that an operator's files have, whatever umask they were started with.
pub(crate) fn usual_umask() {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
}

/// The program under test, with none of the variables that it reads.
pub(crate) fn program(name: &Path) -> Command {
    usual_umask();
    let mut command = Command::new(name);
    let inherited =
        ["USER", "ENVEXEC_TOKEN", "CTRL_EXEC_ROOT", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "XDG_RUNTIME_DIR"];
    for variable in inherited {
        command.env_remove(variable);
    }
    command
}

/// Runs the program under test with these words.
pub(crate) fn run(words: &[&str]) -> Ran {
    let mut command = program(&binary());
    command.args(words);
    finish(command, "")
}

/// Runs a command to its end; `input` is its standard input.
#[track_caller]
pub(crate) fn finish(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    // A program need not read its input.
    drop(stdin.write_all(input.as_bytes()));
    drop(stdin);
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(DEADLINE), stderr.recv_timeout(DEADLINE)) else {
        drop(child.kill());
        panic!("{command:?} did not end within {} s", DEADLINE.as_secs());
    };
    let code = child.wait().unwrap().code().unwrap_or(-1);
    Ran { code, stdout, stderr }
}

fn collect(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}
