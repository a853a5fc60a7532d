//! Signals to processes that this program started.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Kills every process of the group that `leader` leads. Only for a leader that has not been waited for: afterwards
/// its number may name another group.
pub fn kill_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader) {
        // ESRCH: it is gone already.
        let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
    }
}
