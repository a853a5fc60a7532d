//! An upgrade of the agent's file, taken up without an interruption: SIGUSR2.
//!
//! The agent stays the process that it is, and becomes the program that stands at its path by then (execve(2)). So its
//! number stays, which is what makes this the same with every service manager, and possible for the first process of a
//! container; its listening sockets stay open, and who calls meanwhile waits in the kernel's queue.
//!
//! 1. The new file is tried: it reads the configuration, and says that it could serve, and with whose executor. If not,
//!    nothing has happened.
//! 2. The door is closed, and requests under way are finished. One that takes longer is not broken off: the door opens
//!    again, and the agent tries again when those that it has waited for are over. A second signal does not wait.
//! 3. The process runs the new file. Jobs are the monitors' and notice nothing.
//!
//! An agent that has given up root, and with it the possibility to start a root executor, keeps the one that it has, which
//! takes the new file up by itself first: by its own path, and only if nobody but root could have written that.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::orders::ExecutorError;
use crate::audit::{Event, Level};
use crate::conf::agent::Settings;
use crate::sys::descriptors;
use crate::sys::handover::Left;
use crate::sys::process::{Program, Signal, Trial};

/// The word that has `serve` say whether it could serve, and do no more.
pub const CHECK: &str = "--check";
/// What a file that could serve says first; its version comes behind.
const READY: &str = "ready to serve: ctrl-exec-agent ";
/// What it says then; whose executor it would have comes behind.
const EXECUTOR: &str = "executor: ";
/// Behind [`EXECUTOR`]: the one at `executor_socket`, or one that the agent starts.
const WHOSE: [&str; 2] = ["the system's", "the agent's own"];

/// Descriptors wanted: one for each connection, and four more for each script that runs.
const DESCRIPTORS: u64 = 16_384;
/// How long a trial may take.
const TRIAL: Duration = Duration::from_secs(5);

/// Why the agent stays the program that it is.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The configuration now wants an executor of another kind, with which scripts have other rights.
    #[error("'executor_socket' was set or removed, which takes a restart of the agent")]
    OtherExecutor,
    /// Its own root executor stays the old one.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The file cannot be executed.
    #[error("the file cannot be executed")]
    Start(#[source] io::Error),
    /// It could not serve.
    #[error("the file could not serve: {0}")]
    Unfit(String),
    /// It did not say whether it could serve.
    #[error("the file did not say within {} seconds whether it could serve", TRIAL.as_secs())]
    Silent,
}

/// What a file says that could serve with these settings. The agent that hears it does not read the configuration for
/// itself: what only the new version knows may be there already.
#[must_use]
pub fn ready(settings: &Settings) -> String {
    let [systems, own] = WHOSE;
    let whose = if settings.executor_socket.is_some() { systems } else { own };
    format!("{READY}{}\n{EXECUTOR}{whose}", env!("CARGO_PKG_VERSION"))
}

/// What a file that could serve has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Its version.
    pub version: String,
    /// Whether its executor would be the system's.
    pub system: bool,
}

/// What this process runs, and what has to be as it was when another program begins.
#[derive(Clone, Debug)]
pub struct Footing {
    program: Arc<Program>,
    limit: u64,
}

impl Footing {
    /// Of a program that has just begun. Its limit on descriptors is raised as far as an agent needs it.
    ///
    /// # Errors
    /// The limit cannot be read.
    pub fn new(program: Program) -> io::Result<Self> {
        Ok(Self { program: Arc::new(program), limit: descriptors::raise(DESCRIPTORS)? })
    }

    /// The limit on descriptors that it was started with.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.program.path().to_owned()
    }

    /// Tries the file that is there now.
    ///
    /// # Errors
    /// It is no agent, or could not serve.
    pub async fn attempt(&self) -> Result<Fit, UpgradeError> {
        let program = Arc::clone(&self.program);
        let trial = spawn_blocking(move || program.attempt(CHECK, TRIAL)).await;
        // It fails only where the runtime is going down.
        judge(trial.map_err(io::Error::other).flatten().map_err(UpgradeError::Start)?)
    }

    /// Runs the file that is there now, which gets what is left. Only returns if that fails, and then nothing has changed.
    #[must_use]
    pub fn take_up(&self, left: &Left<'_>) -> io::Error {
        // Else scripts would get the limit that is for an agent alone.
        if let Err(error) = descriptors::put_back(self.limit) {
            return error;
        }
        // A reload or another upgrade is what is about to happen anyway; and who wants the end shall have it.
        let error =
            self.program.become_it(left, &[Signal::SIGHUP, Signal::SIGUSR2], &[Signal::SIGTERM, Signal::SIGINT]);
        match descriptors::raise(DESCRIPTORS) {
            Ok(_) => error,
            Err(other) => other,
        }
    }

    /// A line about it.
    pub fn event(&self, level: Level) -> Event {
        Event::new(level, "upgrade").field("FILE", self.program.path().display())
    }
}

fn judge(trial: Trial) -> Result<Fit, UpgradeError> {
    match trial {
        Trial::Passed(said) => {
            heard(&said).ok_or_else(|| UpgradeError::Unfit("it is no agent, or one that cannot take over".to_owned()))
        }
        Trial::Failed(said) => Err(UpgradeError::Unfit(said.split_whitespace().collect::<Vec<_>>().join(" "))),
        Trial::Silent => Err(UpgradeError::Silent),
    }
}

fn heard(said: &str) -> Option<Fit> {
    let behind = |start: &str| said.lines().find_map(|line| line.strip_prefix(start));
    let whose = behind(EXECUTOR)?;
    let [systems, _] = WHOSE;
    let system = WHOSE.contains(&whose).then_some(whose == systems)?;
    Some(Fit { version: behind(READY)?.to_owned(), system })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_says_so_could_serve() {
        for (whose, system) in WHOSE.into_iter().zip([true, false]) {
            let said = format!("warning: x\n{READY}1.2.3\n{EXECUTOR}{whose}");
            assert_eq!(judge(Trial::Passed(said)).unwrap(), Fit { version: "1.2.3".to_owned(), system });
        }
        for said in ["", "ready", &format!("{READY}1.2.3"), &format!("{READY}1.2.3\n{EXECUTOR}somebody's")] {
            assert!(judge(Trial::Passed(said.to_owned())).is_err(), "{said}");
        }
        assert!(judge(Trial::Silent).is_err());
        let unfit = judge(Trial::Failed("Error: a\n  b".to_owned())).unwrap_err();
        assert_eq!(unfit.to_string(), "the file could not serve: Error: a b");
    }
}
