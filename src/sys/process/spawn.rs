//! Starting a program with exactly the surroundings that were asked for.
//!
//! The order of steps in the new process: own session; parent-death signal; standard descriptors; default signals;
//! working directory and umask; the file is still the one that was judged; every other descriptor closed; exec.
//! A step that fails is reported through a pipe that exec closes, so that the parent can tell a program that ran from
//! one that did not.
#![expect(unsafe_code, reason = "closing a range of descriptors has no safe binding")]

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{self, Pid};

use super::signals::reset_for_exec;
use super::{Fork, end, fork, own_session};
use crate::sys::file::{self, Identity};
use crate::sys::pipe;

/// Status of a child that could not exec; its parent learns the reason from the pipe instead.
const NOT_STARTED: i32 = 127;

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
}

/// What is known about the file that will be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing was judged.
    Anything,
    /// This file was judged.
    File(Identity),
    /// There was no file to judge, so none may be executed.
    Nothing,
}

/// A process on its way to its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id, which is also that of its session and process group.
    pub pid: Pid,
    /// Becomes readable when exec has succeeded or failed: hand it to [`Failure::read`] then.
    pub verdict: OwnedFd,
}

impl Spawn {
    /// Starts the program; this process's copies of `stdio` are closed.
    ///
    /// **Invariant:** as [`fork`], the caller has one thread.
    ///
    /// # Errors
    /// Out of descriptors or processes. Everything later is a [`Failure`].
    pub fn start(self) -> io::Result<Spawned> {
        let (verdict, failure) = pipe::pipe()?;
        let parent = unistd::getpid();
        match fork()? {
            Fork::Parent(pid) => Ok(Spawned { pid, verdict }),
            Fork::Child => {
                let (step, errno) = self.become_program(parent, failure.as_raw_fd());
                let [a, b, c, d] = (errno as i32).to_ne_bytes();
                // The parent may be gone, and then nobody wants to know.
                let _ = unistd::write(&failure, &[step as u8, a, b, c, d]);
                end(NOT_STARTED)
            }
        }
    }

    /// Only returns if a step fails.
    fn become_program(&self, parent: Pid, failure: RawFd) -> (Step, Errno) {
        match self.steps(parent, failure) {
            Ok(never) => match never {},
            Err(failed) => failed,
        }
    }

    fn steps(&self, parent: Pid, failure: RawFd) -> Result<std::convert::Infallible, (Step, Errno)> {
        own_session().map_err(at(Step::Session))?;
        if self.dies_with_parent {
            prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| (Step::ParentDeath, errno))?;
            // The parent may have ended just before that.
            if unistd::getppid() != parent {
                return Err((Step::ParentDeath, Errno::ESRCH));
            }
        }
        let [input, output, error] = &self.stdio;
        unistd::dup2_stdin(input).map_err(|errno| (Step::Stdio, errno))?;
        unistd::dup2_stdout(output).map_err(|errno| (Step::Stdio, errno))?;
        unistd::dup2_stderr(error).map_err(|errno| (Step::Stdio, errno))?;
        reset_for_exec().map_err(at(Step::Signals))?;
        unistd::chdir("/").map_err(|errno| (Step::Directory, errno))?;
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
        self.check_identity()?;
        close_all_but(failure).map_err(at(Step::Close))?;
        unistd::execve(&self.path, &self.argv, &self.environment).map_err(|errno| (Step::Exec, errno))
    }

    fn check_identity(&self) -> Result<(), (Step, Errno)> {
        if self.expected == Expected::Anything {
            return Ok(());
        }
        let found = Identity::of(file::path_of(&self.path)).map_err(at(Step::Exec))?;
        if self.expected == Expected::File(found) { Ok(()) } else { Err((Step::Identity, Errno::ESTALE)) }
    }
}

/// Gives an error the step that it belongs to.
fn at(step: Step) -> impl Fn(io::Error) -> (Step, Errno) {
    move |error| (step, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Closes every descriptor above standard error but `kept`. Whoever owns one in this copy of the process never gets to
/// drop it: exec or [`end`] come next.
fn close_all_but(kept: RawFd) -> io::Result<()> {
    let kept = u32::try_from(kept).map_err(io::Error::other)?;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.saturating_add(1), u32::MAX)] {
        if first <= last && !close_range(first, last) {
            return close_listed(kept);
        }
    }
    Ok(())
}

/// Whether the kernel knows the call (5.9) and did it.
fn close_range(first: u32, last: u32) -> bool {
    // SAFETY: the call takes numbers alone, and what it closes is used by nobody any more (see `close_all_but`).
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) == 0 }
}

/// As [`close_all_but`], one by one.
pub(super) fn close_listed(kept: u32) -> io::Result<()> {
    let kept = RawFd::try_from(kept).map_err(io::Error::other)?;
    let entries = std::fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2 && *number != kept) {
        // The directory's own descriptor is in the list and closed by now.
        let _ = unistd::close(number);
    }
    Ok(())
}

/// What a new process was doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Session,
    ParentDeath,
    Stdio,
    Signals,
    Directory,
    Identity,
    Close,
    Exec,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Session,
        Self::ParentDeath,
        Self::Stdio,
        Self::Signals,
        Self::Directory,
        Self::Identity,
        Self::Close,
        Self::Exec,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ParentDeath => "parent-death-signal",
            Self::Stdio => "stdio",
            Self::Signals => "signals",
            Self::Directory => "directory",
            Self::Identity => "identity",
            Self::Close => "close-descriptors",
            Self::Exec => "exec",
        }
    }
}

/// Why a process never became its program.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    step: Step,
    errno: Errno,
}

impl Failure {
    /// Reads the verdict: `None` if the program runs (or the process was killed on the way to it).
    ///
    /// # Errors
    /// The pipe cannot be read.
    pub fn read(verdict: OwnedFd) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        std::fs::File::from(verdict).take(16).read_to_end(&mut bytes)?;
        let [step, errno @ ..] = bytes.as_slice() else { return Ok(None) };
        let step = Step::ALL.into_iter().find(|known| *known as u8 == *step).unwrap_or(Step::Exec);
        let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
        Ok(Some(Self { step, errno: Errno::from_raw(errno) }))
    }

    /// The step that failed, in kebab-case; `exec` for the program itself.
    #[must_use]
    pub const fn step(&self) -> &'static str {
        self.step.name()
    }

    /// The system's reason.
    #[must_use]
    pub fn reason(&self) -> io::Error {
        self.errno.into()
    }
}
