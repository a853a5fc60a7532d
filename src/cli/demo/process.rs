//! The demo's processes: this program, under another name.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::interrupt;
use crate::cli::out;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::{file, signal};

/// How long a daemon may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the wait for a daemon's word may last until it is looked whether the daemon still runs.
const LOOK: Duration = Duration::from_millis(100);

/// Where the audit lines of a process are kept.
pub(super) fn log(root: &Path, who: &str) -> PathBuf {
    root.join(format!("{who}.log"))
}

/// A temporary directory that will not do.
pub(super) fn unusable(parent: &Path, error: &std::io::Error) -> Failure {
    let text = format!("the demo cannot use the temporary directory {}: {error}", parent.display());
    Failure::new(Exit::Unavailable, text).hint("name another one: TMPDIR=/tmp ctrl-exec demo")
}

/// What a process has said for people. Its log goes with the demo's directory, so a failure has to quote it.
fn said(log: &Path) -> String {
    let bytes = file::read_bounded(log, 1024 * 1024).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines = text.lines().filter(|line| !line.contains("ACTION="));
    lines.fold(String::new(), |said, line| said + "\n   " + line)
}

/// One command.
#[derive(Debug)]
pub(super) struct Step {
    name: &'static str,
    words: Vec<String>,
    command: Command,
    quiet: bool,
    log: PathBuf,
}

impl Step {
    /// A command of one of the two roles, its audit lines kept beside the host's files.
    pub(super) fn new(root: &Path, name: &'static str, role: &str, words: &[&str]) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the demo is made of this program's own processes")]
        let mut command = Command::new("/proc/self/exe");
        command.arg(role).arg("--root").arg(root).args(words).stdin(Stdio::null());
        command.env_remove("NOTIFY_SOCKET");
        Self {
            name,
            words: words.iter().map(ToString::to_string).collect(),
            command,
            quiet: false,
            log: log(root, name),
        }
    }

    /// The program as one types it.
    pub(super) const fn name(&self) -> &str {
        self.name
    }

    /// The words behind it.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Does not show what it prints.
    pub(super) const fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Runs it to its end and shows what it prints; fails if it does.
    pub(super) fn run(self) -> Result<(), Failure> {
        let (name, words) = (self.name, self.words.join(" "));
        if self.status()? { Ok(()) } else { Err(Failure::new(Exit::Failed, format!("'{name} {words}' failed"))) }
    }

    /// Runs it to its end, shows what it prints, and says whether it succeeded.
    pub(super) fn status(mut self) -> Result<bool, Failure> {
        interrupt::check()?;
        let output = self.command.output().map_err(|error| Failure::new(Exit::Unavailable, error))?;
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let (audit, told): (Vec<&str>, Vec<&str>) = errors.lines().partition(|line| line.contains("ACTION="));
        if !self.quiet {
            text.lines().chain(told.iter().copied()).for_each(|line| out::line(format!("   {line}")));
        }
        append(&self.log, &audit)?;
        interrupt::check()?;
        Ok(output.status.success())
    }

    /// Starts it with its output readable line by line.
    pub(super) fn spawn(mut self) -> Result<Asking, Failure> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| Failure::new(Exit::Unavailable, error))?;
        let child = self.command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut child = child.map_err(|error| Failure::new(Exit::Unavailable, error))?;
        let lines = child.stdout.take().map(BufReader::new);
        Ok(Asking { child, lines, log: self.log })
    }
}

fn append(log: &PathBuf, lines: &[&str]) -> Result<(), Failure> {
    use std::io::Write as _;
    let fail = |error| Failure::new(Exit::Unavailable, error);
    let mut file = OpenOptions::new().create(true).append(true).open(log).map_err(fail)?;
    lines.iter().try_for_each(|line| writeln!(file, "{line}")).map_err(fail)
}

/// A command that waits for somebody else. Killed when dropped.
#[derive(Debug)]
pub(super) struct Asking {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Asking {
    /// Reads its output up to the line that begins so, and returns the rest of that line.
    pub(super) fn line_after(&mut self, start: &str) -> Result<String, Failure> {
        let lines = self.lines.as_mut().into_iter().flat_map(BufRead::lines).map_while(Result::ok);
        for line in lines {
            if let Some(rest) = line.strip_prefix(start) {
                return Ok(rest.trim().to_owned());
            }
        }
        Err(self.failed())
    }

    /// Shows the rest of its output and waits for its end.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        for line in self.lines.take().into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            if line.starts_with("Pairing complete") {
                out::line(format!("   {line}"));
            }
        }
        let status = self.child.wait().map_err(|error| Failure::new(Exit::Unavailable, error))?;
        if status.success() { Ok(()) } else { Err(self.failed()) }
    }

    fn failed(&self) -> Failure {
        interrupt::check().err().unwrap_or_else(|| {
            Failure::new(Exit::Failed, format!("the managed host was not paired:{}", said(&self.log)))
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        // One that has ended is no more than reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that serves until it is told to stop. Killed when dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Option<Child>,
    port: u16,
}

impl Daemon {
    /// Starts it and waits until it says that it is ready.
    pub(super) fn start(root: &Path, who: &str, mut step: Step) -> Result<Self, Failure> {
        let fail = |error| Failure::new(Exit::Unavailable, error);
        let place = root.join(format!("{who}.notify"));
        // The path of a socket is limited to some hundred bytes (unix(7)).
        let notify = UnixDatagram::bind(&place).map_err(|error| unusable(root, &error))?;
        // Started as root, the agent tells it as nobody.
        std::fs::set_permissions(&place, PermissionsExt::from_mode(0o777)).map_err(fail)?;
        notify.set_read_timeout(Some(LOOK)).map_err(fail)?;
        let log = log(root, who);
        let errors = OpenOptions::new().create(true).append(true).open(&log).map_err(fail)?;
        let child = step.command.env("NOTIFY_SOCKET", &place).stdout(Stdio::null()).stderr(errors).spawn();
        let mut daemon = Self { child: Some(child.map_err(fail)?), port: 0 };
        if let Some(port) = daemon.announced(&notify) {
            daemon.port = port;
            return Ok(daemon);
        }
        interrupt::check()?;
        let text = format!("'{} {}' did not start:{}", step.name, step.words.join(" "), said(&log));
        Err(Failure::new(Exit::Unavailable, text).hint("TMPDIR=DIR names another place for the demo"))
    }

    /// Waits for its word that it is ready, while it lives.
    fn announced(&mut self, notify: &UnixDatagram) -> Option<u16> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // Looked at first: what it said before its end still counts.
            let ended = !matches!(self.child.as_mut()?.try_wait(), Ok(None));
            if let Some(port) = ready(notify) {
                return Some(port);
            }
            if ended || interrupt::check().is_err() {
                return None;
            }
        }
        None
    }

    /// The port it listens on.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Asks it to end and waits until it has.
    pub(super) fn stop(mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = signal::ask_to_end(child.id());
            let _ = child.wait();
        }
    }

    /// Leaves it running.
    pub(super) fn leave(mut self) {
        self.child = None;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The port of a notification (`sd_notify(3)`) that says READY and the address; nothing if the next one is another, or
/// none comes within a moment.
fn ready(notify: &UnixDatagram) -> Option<u16> {
    let mut buffer = [0; 4096];
    let size = notify.recv(&mut buffer).ok()?;
    let text = String::from_utf8_lossy(buffer.get(..size)?).into_owned();
    text.lines().find(|line| *line == "READY=1")?;
    let address = text.lines().find_map(|line| line.strip_prefix("X_CTRL_EXEC_ADDRESS="))?;
    address.rsplit_once(':')?.1.parse().ok()
}
