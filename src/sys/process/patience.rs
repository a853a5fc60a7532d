//! An end for a new process that does not get to its program: a file system that does not answer holds whoever asks it
//! something, and, while a new process borrows the memory of the one that made it, that one too.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// The kernel kills this process unless it executes a program within `limit` (`timer_create(2)`: exec takes timers away).
///
/// # Errors
/// Out of memory, or of what signals may wait for this user.
pub fn end_unless_program_within(limit: Duration) -> io::Result<()> {
    let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, event)?;
    // Nothing would be no limit.
    let limit = limit.max(Duration::from_millis(1));
    timer.set(Expiration::OneShot(limit.into()), TimerSetTimeFlags::empty())?;
    // To drop it would take it away.
    std::mem::forget(timer);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{self, End, Reaped, fork_for_exec};

    #[test]
    fn a_process_without_a_program_is_ended_and_its_parent_goes_on() {
        let text = process::tests::in_a_process("patience", || {
            let started = std::time::Instant::now();
            let child = fork_for_exec(|| {
                if end_unless_program_within(Duration::from_millis(20)).is_ok() {
                    nix::unistd::pause();
                }
            });
            let patient = started.elapsed().as_millis() >= 20;
            // Its parent goes on when its memory is given up, which is a moment before it can be buried.
            let reaped = loop {
                match process::reap().unwrap() {
                    Reaped::Child(child, end) => break (child, end),
                    Reaped::Running => std::thread::yield_now(),
                    Reaped::Nobody => panic!("the child was buried by somebody else"),
                }
            };
            format!("{} {patient}", reaped == (child.unwrap(), End::Signalled(9)))
        });
        assert_eq!(text, "true true");
    }
}
