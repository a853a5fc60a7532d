//! Which executor an agent has, and the executor of the system as a process of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use super::audit::{self, Line};
use super::notify::Notify;
use super::process::program;
use super::{DEADLINE, binary, eventually, host};

/// Which executor carries out an agent's orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A child with the agent's own rights.
    Private,
    /// A child with root's rights, started before the agent gives them up.
    Own,
    /// A service of the system, behind a socket.
    System,
}

impl Mode {
    /// Every one that applies profiles.
    pub(crate) const ROOT: [Self; 2] = [Self::Own, Self::System];
    /// Every one.
    pub(crate) const ALL: [Self; 3] = [Self::Private, Self::Own, Self::System];
    /// The account that scripts run as where profiles are applied and say nothing else. The agent's own is refused.
    pub(crate) const SCRIPTS: &str = "daemon";
}

impl Default for Mode {
    /// What `CTRL_EXEC_TEST_EXECUTOR` names, so that the whole suite can be run with each.
    fn default() -> Self {
        match std::env::var("CTRL_EXEC_TEST_EXECUTOR").as_deref() {
            Ok("own") => Self::Own,
            Ok("system") => Self::System,
            Ok(other) => panic!("CTRL_EXEC_TEST_EXECUTOR={other} is neither 'own' nor 'system'"),
            Err(_) => Self::Private,
        }
    }
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    notify: Notify,
    stderr: PathBuf,
}

impl Service {
    /// The command line of a service at `socket` for the files below `root`.
    pub(crate) fn command(root: &Path, socket: &Path) -> Command {
        Self::command_after("", root, socket)
    }

    /// The same, after these words of a shell.
    pub(crate) fn command_after(words: &str, root: &Path, socket: &Path) -> Command {
        let etc = root.join("etc/ctrl-exec-agent");
        // With the limit on descriptors that service managers set.
        let mut command = program(Path::new("/bin/sh"));
        command.args(["-c", &format!("ulimit -Sn 1024; {words}\nexec \"$@\""), "sh"]).arg(binary());
        command.arg("serve-executor").arg(socket).arg(etc.join("agent.conf")).arg(etc.join("scripts.conf"));
        command.arg("nobody").env("CTRL_EXEC_ROOT", root);
        command
    }

    /// Starts this command, which is one, and waits until it is ready.
    pub(crate) fn of(mut command: Command, root: &Path, number: u32) -> Self {
        let stderr = root.join(format!("executor.{number}"));
        let notify = Notify::bind(&root.join("executor-notify"));
        command.env("NOTIFY_SOCKET", notify.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());
        let mut service = Self { child: command.spawn().unwrap(), notify, stderr };
        service.wait_until_ready();
        service
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.notify.receive().unwrap_or_default().iter().any(|(key, _)| key == "READY") {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the executor ended at once, {status}:\n{}", self.stderr());
            }
            assert!(Instant::now() < deadline, "the executor is not ready:\n{}", self.stderr());
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for an audit line with something about it.
    pub(crate) fn line_where(&self, action: &str, mut wanted: impl FnMut(&Line) -> bool) -> Line {
        let found = |line: &Line| line.action() == action && wanted(line);
        let mut found = found;
        eventually(&format!("a line '{action}' of the executor"), || {
            audit::lines(&self.stderr()).into_iter().find(|line| found(line))
        })
    }

    /// Ends it with this signal and returns the exit status, if it was not the signal that ended it.
    pub(crate) fn end(mut self, signal: Signal) -> Option<i32> {
        host::kill(self.pid(), signal);
        eventually("the end of the executor", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- standard error of the executor\n{}", self.stderr());
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
