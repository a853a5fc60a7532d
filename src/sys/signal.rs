//! Signals to processes that this program started.

use std::io;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Kills every process of the group that `leader` leads. Only for a leader that has not been waited for: afterwards
/// its number may name another group.
pub fn kill_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader) {
        // ESRCH: it is gone already.
        let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
    }
}

/// Asks a process to end (SIGTERM). The caller knows that the number still names the process that it means.
///
/// # Errors
/// There is no such process, or it belongs to somebody else.
pub fn ask_to_end(pid: u32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 1);
    let pid = pid.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "this is no process id"))?;
    Ok(kill(Pid::from_raw(pid), Signal::SIGTERM)?)
}
