//! Starting this same program as a private child, with a socket between the two.
//!
//! The socket is the child's standard input. That needs no step between fork and exec, so the standard library can
//! spawn without copying this process, which for a large process with many threads is five times dearer.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::unistd::{dup2_stdin, execve};

use crate::sys::fdpass;
use crate::sys::handover::OF_THE_SERVICE_MANAGER;

/// What such a child is called.
const NAME: &str = "ctrl-exec";

/// Starts the file that this process runs, also when it has been replaced on disk, with `control` as its socket.
/// Its standard output is empty, its standard error is ours. What the service manager gave to us is not for it.
///
/// # Errors
/// Out of processes or descriptors, or `/proc` is missing.
pub fn spawn_private(arguments: &[&OsStr], control: OwnedFd) -> io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts our own program")]
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).args(arguments).stdin(Stdio::from(control)).stdout(Stdio::null());
    for name in OF_THE_SERVICE_MANAGER {
        command.env_remove(name);
    }
    command.spawn()
}

/// In such a child: becomes the program at `path`, with the same words as for [`spawn_private`] and `control` as its
/// socket. Only returns if that fails; then nothing has changed.
#[must_use]
pub fn become_private(path: &Path, arguments: &[&OsStr], control: &OwnedFd) -> io::Error {
    let tried = || -> io::Result<Infallible> {
        let text = |word: &OsStr| CString::new(word.as_bytes());
        let words = std::iter::once(OsStr::new(NAME)).chain(arguments.iter().copied());
        let words = words.map(text).collect::<Result<Vec<_>, _>>()?;
        let pair = |(name, value): (OsString, OsString)| text(&[&*name, &*value].join(OsStr::new("=")));
        let environment = std::env::vars_os().map(pair).collect::<Result<Vec<_>, _>>()?;
        let path = text(path.as_os_str())?;
        dup2_stdin(control)?;
        let failed = execve(&path, &words, &environment);
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(failed?)
    };
    match tried() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// In such a child: takes the socket out of standard input and leaves `/dev/null` there.
///
/// # Errors
/// Standard input is not a unix socket: the process was started by hand.
pub fn control_from_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    fdpass::peer(stdin.as_fd())?;
    let control = stdin.as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(control)
}
