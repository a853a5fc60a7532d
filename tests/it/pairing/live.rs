//! A command under way: what it has said so far, what is typed to it, and how it ends.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::process::Ran;
use crate::harness::{eventually, host, terminal};

/// A process whose output is read while it runs. Killed when dropped.
#[derive(Debug)]
pub(super) struct Live {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    /// The operator's end of its terminal, where it has one.
    keyboard: Option<File>,
}

impl Live {
    /// Starts a command without a terminal. Its output goes to two files that begin with `place`.
    pub(super) fn start(command: Command, place: &Path) -> Self {
        Self::with(command, place, Stdio::null(), None)
    }

    /// Starts a command whose standard input is a terminal.
    pub(super) fn on_terminal(command: Command, place: &Path) -> Self {
        let (keyboard, terminal) = terminal::pair();
        Self::with(command, place, terminal.into(), Some(keyboard))
    }

    fn with(mut command: Command, place: &Path, stdin: Stdio, keyboard: Option<File>) -> Self {
        let (stdout, stderr) = (place.with_extension("out"), place.with_extension("err"));
        command.stdin(stdin).stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Self { child: command.spawn().unwrap(), stdout, stderr, keyboard }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    pub(super) fn out(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    /// Standard error so far.
    pub(super) fn err(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits until it has said this on standard output, and returns everything that it has said.
    #[track_caller]
    pub(super) fn says(&mut self, text: &str) -> String {
        self.waits(&format!("'{text}'"), |out| out.contains(text).then(|| out.to_owned()))
    }

    /// Waits for the first line that begins so, whole, and returns the rest of it.
    #[track_caller]
    pub(super) fn line_after(&mut self, start: &str) -> String {
        self.waits(&format!("a line '{start}...'"), |out| {
            let whole = &out[..=out.rfind('\n')?];
            whole.lines().find_map(|line| line.strip_prefix(start)).map(|rest| rest.trim().to_owned())
        })
    }

    #[track_caller]
    fn waits<T>(&mut self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let mut over = false;
        eventually(what, || {
            let seen = look(&self.out());
            assert!(seen.is_some() || !over, "ended without {what}:\n{}\n{}", self.out(), self.err());
            over = self.child.try_wait().unwrap().is_some();
            seen
        })
    }

    /// Types a line.
    pub(super) fn types(&mut self, line: &str) {
        self.keyboard.as_mut().expect("a terminal").write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Types the end of input (termios(3): VEOF).
    pub(super) fn ends_input(&mut self) {
        self.keyboard.as_mut().expect("a terminal").write_all(&[4]).unwrap();
    }

    /// Hangs the terminal up.
    pub(super) fn hangs_up(&mut self) {
        self.keyboard = None;
    }

    /// Whether it has not ended yet.
    pub(super) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(super) fn signal(&self, signal: Signal) {
        host::kill(self.pid(), signal);
    }

    /// Waits for its end.
    pub(super) fn ends(mut self) -> Ran {
        let status = eventually("the end of a command", || self.child.try_wait().unwrap());
        Ran { code: status.code().unwrap_or(-1), stdout: self.out(), stderr: self.err() }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- {}\n{}{}", self.stdout.display(), self.out(), self.err());
        }
    }
}
