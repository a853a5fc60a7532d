//! Starting a program with exactly the surroundings that were asked for.
//!
//! The order of steps in the new process: own session; parent-death signal; standard descriptors; default signals; what
//! the caller adds, such as giving up rights; working directory and umask; the file is still the one that was judged;
//! every other descriptor closed; exec. A step that fails is reported through a pipe that exec closes, so that the parent
//! can tell a program that ran from one that did not.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{self, Pid};

use super::fault::Fault;
use super::patience::end_unless_program_within;
use super::signals::reset_for_exec;
use super::{fork_for_exec, own_keyring, own_or_empty_keyring, own_session};
use crate::sys::call::{Numbers, call};
use crate::sys::file::{self, Identity, Version};
use crate::sys::pipe;

/// A program to start.
#[derive(Debug)]
pub struct Spawn {
    /// The file to execute: an absolute path, no search.
    pub path: CString,
    /// The argument vector from argv\[0\] on.
    pub argv: Vec<CString>,
    /// The whole environment, `NAME=value`.
    pub environment: Vec<CString>,
    /// Standard input, output and error; the only descriptors that the program gets.
    pub stdio: [OwnedFd; 3],
    /// What the file must be when it is executed; anything is fine if nothing was judged.
    pub expected: Expected,
    /// Whether the kernel kills the program when this process ends (`PR_SET_PDEATHSIG`). It is lost by a program
    /// with file capabilities or a set-user-ID bit, and is not inherited.
    pub dies_with_parent: bool,
    /// Whether what is done besides keeps the program from every call that uses keys.
    pub without_keys: bool,
    /// Where the program starts.
    pub directory: PathBuf,
    /// Permissions that files it makes do not get.
    pub umask: u32,
}

/// What is known about the file that will be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing was judged.
    Anything,
    /// This file was judged.
    File(Identity),
    /// This state of a file was judged, since its content was.
    Unchanged(Version),
    /// There was no file to judge, so none may be executed.
    Nothing,
}

/// A process on its way to its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, which is also that of its session and process group.
    pub pid: Pid,
    /// Becomes readable when exec has succeeded or failed: hand it to [`super::Failure::read`] then.
    pub verdict: OwnedFd,
}

impl Spawn {
    /// Starts the program; this process's copies of `stdio` are closed. Whether the new process has taken all of its `patience`
    /// and was killed for it: nothing is known then of what it has done to this one's memory, which it had until then.
    ///
    /// **Invariant:** as [`super::fork()`], the caller has one thread.
    ///
    /// # Errors
    /// Out of descriptors or processes. Everything later is a [`super::Failure`].
    pub fn start(self, patience: Duration) -> io::Result<(Spawned, bool)> {
        let (verdict, failure) = pipe::pipe()?;
        let (parent, begun) = (unistd::getpid(), Instant::now());
        let in_time = || end_unless_program_within(patience).map_err(Fault::at("timer"));
        let pid = fork_for_exec(|| self.become_program(parent, &failure, in_time).report(&failure))?;
        Ok((Spawned { pid, verdict }, begun.elapsed() >= patience))
    }

    /// The file to execute.
    #[must_use]
    pub fn program(&self) -> &std::path::Path {
        file::path_of(&self.path)
    }

    /// Turns this process, a child of `parent`, into the program, with `rights` as the step that gives up what the
    /// program must not have. Only returns if a step fails. `failure` is a pipe's end: it stays open until exec.
    pub fn become_program(&self, parent: Pid, failure: &OwnedFd, rights: impl FnOnce() -> Result<(), Fault>) -> Fault {
        match self.steps(parent, failure, rights) {
            Ok(never) => match never {},
            Err(fault) => fault,
        }
    }

    fn steps(
        &self,
        parent: Pid,
        failure: &OwnedFd,
        rights: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<std::convert::Infallible, Fault> {
        own_session().map_err(Fault::at("session"))?;
        let keyring = if self.without_keys { own_or_empty_keyring() } else { own_keyring() };
        keyring.map_err(Fault::at("keyring"))?;
        if self.dies_with_parent {
            prctl::set_pdeathsig(Signal::SIGKILL).map_err(Fault::at("parent-death-signal"))?;
            // The parent may have ended just before that.
            if unistd::getppid() != parent {
                return Err(Fault::at("parent-death-signal")(Errno::ESRCH));
            }
        }
        let [input, output, error] = &self.stdio;
        unistd::dup2_stdin(input).map_err(Fault::at("stdio"))?;
        unistd::dup2_stdout(output).map_err(Fault::at("stdio"))?;
        unistd::dup2_stderr(error).map_err(Fault::at("stdio"))?;
        reset_for_exec().map_err(Fault::at("signals"))?;
        rights()?;
        let lost = |errno| Fault::at("directory")(errno).about(self.directory.display());
        unistd::chdir(&self.directory).map_err(lost)?;
        nix::sys::stat::umask(Mode::from_bits_truncate(self.umask));
        self.check_identity()?;
        close_all_but(&[failure.as_fd()]).map_err(Fault::at("close-descriptors"))?;
        unistd::execve(&self.path, &self.argv, &self.environment).map_err(Fault::at("exec"))
    }

    fn check_identity(&self) -> Result<(), Fault> {
        if self.expected == Expected::Anything {
            return Ok(());
        }
        let found = Version::of(file::path_of(&self.path)).map_err(Fault::at("exec"))?;
        let expected = [Expected::File(found.identity()), Expected::Unchanged(found)].contains(&self.expected);
        if expected { Ok(()) } else { Err(Fault::at("identity")(Errno::ESTALE)) }
    }
}

/// Closes every descriptor above standard error but `kept`. Whoever owns one in this copy of the process never gets to
/// drop it: exec or [`super::end`] come next, or a loop that never returns.
pub(super) fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut first = 3;
    loop {
        let numbers = kept.iter().filter_map(|kept| u32::try_from(kept.as_raw_fd()).ok());
        let next = numbers.filter(|number| *number >= first).min();
        let last = next.map_or(u32::MAX, |next| next.saturating_sub(1));
        // Kernels before 5.9 do not know the call.
        if first <= last && call(Numbers::CloseRange { first, last }).is_err() {
            return close_listed(kept);
        }
        let Some(next) = next else { return Ok(()) };
        first = next.saturating_add(1);
    }
}

/// Closes every descriptor but the standard ones and `kept`.
///
/// **Invariant:** the process never returns to code that owns one of them.
///
/// # Errors
/// `/proc` is missing on a kernel older than 5.9.
pub fn keep_only(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    close_all_but(kept)
}

/// As [`close_all_but`], one by one.
pub(super) fn close_listed(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    let is_kept = |number: RawFd| number <= 2 || kept.iter().any(|kept| kept.as_raw_fd() == number);
    for number in numbers.into_iter().filter(|number| !is_kept(*number)) {
        // The directory's own descriptor is in the list and closed by now.
        let _ = unistd::close(number);
    }
    Ok(())
}
