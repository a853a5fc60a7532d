//! Starting this same program as a private child, with a socket between the two.
//!
//! The socket is the child's standard input. That needs no step between fork and exec, so the standard library can
//! spawn without copying this process, which for a large process with many threads is five times dearer.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::unistd::dup2_stdin;

use crate::sys::fdpass;
use crate::sys::handover::OF_THE_SERVICE_MANAGER;

/// Starts the file that this process runs, also when it has been replaced on disk, with `control` as its socket.
/// Its standard output is empty, its standard error is ours. What the service manager gave to us is not for it.
///
/// # Errors
/// Out of processes or descriptors, or `/proc` is missing.
pub fn spawn_private(arguments: &[&OsStr], control: OwnedFd) -> io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts our own program")]
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ctrl-exec").args(arguments).stdin(Stdio::from(control)).stdout(Stdio::null());
    for name in OF_THE_SERVICE_MANAGER {
        command.env_remove(name);
    }
    command.spawn()
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
