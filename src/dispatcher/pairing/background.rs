//! A session in the background: who runs it, and how it is stopped.
//!
//! The process id in the pidfile is for people and for the original's tools. Whether a session runs is told by a lock
//! (flock(2)) beside it, which the kernel releases when its holder dies. So no signal is ever sent to a process that
//! merely has the number of one that ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::conf::dispatcher::Settings;
use crate::sys::file::{self, Access, FileError, LockGuard};
use crate::sys::signal;

/// How long [`Background::stop`] waits between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// A process id and a newline.
const PIDFILE: usize = 64;

/// The place of a background session.
#[derive(Clone, Debug)]
pub struct Background {
    pidfile: PathBuf,
    lock: PathBuf,
}

/// The right to be the background session.
#[derive(Debug)]
pub struct Claim {
    pidfile: PathBuf,
    _lock: LockGuard,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A session runs; its process id, where the pidfile tells.
    Running(Option<u32>),
    /// None runs, and none left anything behind.
    Idle,
    /// None runs; the pidfile of one that was killed has been removed.
    Cleared,
}

/// What came of stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It ended.
    Ended(u32),
    /// It was told to, and has not ended yet.
    Ending(u32),
    /// There was none, as told.
    Nothing(State),
}

/// A session that cannot be found or told.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// Pidfile or lock.
    #[error(transparent)]
    File(#[from] FileError),
    /// A session holds the lock, and its pidfile says nothing.
    #[error("a pairing session runs in the background, but {} does not say which process: stop it by hand", .0.display())]
    Unnamed(PathBuf),
    /// It may not be signalled.
    #[error("the pairing session (PID {pid}) cannot be told to stop")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Background {
    /// The background session of a configuration.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let pidfile = settings.pairing_pidfile();
        Self { lock: pidfile.with_extension("lock"), pidfile }
    }

    /// Whether a session runs. What a killed one left behind is removed.
    pub fn state(&self) -> Result<State, BackgroundError> {
        let Some(_lock) = self.try_lock()? else { return Ok(State::Running(self.pid())) };
        match file::remove(&self.pidfile) {
            Ok(()) => Ok(State::Cleared),
            Err(error) if error.is_not_found() => Ok(State::Idle),
            Err(error) => Err(error.into()),
        }
    }

    /// Becomes the background session; `None` if there is one.
    pub fn claim(&self) -> Result<Option<Claim>, BackgroundError> {
        let Some(lock) = self.try_lock()? else { return Ok(None) };
        file::write_atomic(&self.pidfile, format!("{}\n", std::process::id()).as_bytes(), Access::public())?;
        Ok(Some(Claim { pidfile: self.pidfile.clone(), _lock: lock }))
    }

    /// Tells the session to stop, and waits for that at most for `patience`.
    pub fn stop(&self, patience: Duration) -> Result<Stopped, BackgroundError> {
        let pid = match self.state()? {
            State::Running(pid) => pid.ok_or_else(|| BackgroundError::Unnamed(self.pidfile.clone()))?,
            nothing => return Ok(Stopped::Nothing(nothing)),
        };
        signal::ask_to_end(pid).map_err(|source| BackgroundError::Signal { pid, source })?;
        let start = Instant::now();
        while matches!(self.state()?, State::Running(_)) {
            if start.elapsed() >= patience {
                return Ok(Stopped::Ending(pid));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Stopped::Ended(pid))
    }

    fn try_lock(&self) -> Result<Option<LockGuard>, FileError> {
        if let Some(directory) = self.lock.parent() {
            file::create_dir(directory, 0o2770)?;
        }
        file::try_lock_exclusive(&self.lock, 0o660)
    }

    fn pid(&self) -> Option<u32> {
        let bytes = file::read_bounded(&self.pidfile, PIDFILE).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok().filter(|pid| *pid > 1)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The next one to look clears it away otherwise.
        drop(file::remove(&self.pidfile));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::tests::in_a_process;

    fn background() -> (tempfile::TempDir, Background) {
        let dir = tempfile::tempdir().unwrap();
        let pidfile = dir.path().join("pairing-mode.pid");
        (dir, Background { lock: pidfile.with_extension("lock"), pidfile })
    }

    /// In a process of its own: whoever another test forks holds this process's locks until it has become its program.
    #[test]
    fn a_stale_pidfile_names_nobody_and_is_cleared() {
        let text = in_a_process("stale", || {
            let (_dir, background) = background();
            let before = background.state().unwrap();
            // Our own number: a live process that is no session of ours must not be signalled.
            let text = format!("{}\n", std::process::id());
            file::write_atomic(&background.pidfile, text.as_bytes(), Access::public()).unwrap();
            let stopped = background.stop(Duration::ZERO).unwrap();
            format!("{before:?} {stopped:?} {:?}", background.state().unwrap())
        });
        assert_eq!(text, "Idle Nothing(Cleared) Idle");
    }

    #[test]
    fn a_second_session_is_told_of_the_first() {
        let text = in_a_process("second", || {
            let (_dir, background) = background();
            let claim = background.claim().unwrap().unwrap();
            assert!(background.claim().unwrap().is_none());
            assert_eq!(background.state().unwrap(), State::Running(Some(std::process::id())));
            drop(claim);
            format!("{:?}", background.state().unwrap())
        });
        assert_eq!(text, "Idle");
    }
}
