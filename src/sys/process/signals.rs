//! Signals as something to poll, and signals as a new program expects them.
#![expect(unsafe_code, reason = "setting a disposition has no safe binding")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that arrive at a descriptor (signalfd(2)) instead of interrupting.
#[derive(Debug)]
pub struct Signals {
    source: SignalFd,
}

impl Signals {
    /// Blocks `wanted` in this thread and collects them; the descriptor never waits and closes on exec.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn collect(wanted: &[Signal]) -> io::Result<Self> {
        let mask: SigSet = wanted.iter().copied().collect();
        mask.thread_block()?;
        Ok(Self { source: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)? })
    }

    /// The next signal that has arrived, if any. Equal ones may have been merged (signal(7)).
    ///
    /// # Errors
    /// Not expected of the kernel.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        Ok(self.next_from()?.map(|(signal, _)| signal))
    }

    /// As [`Signals::next`], with the sender's process id; 0 for one outside of this process namespace.
    ///
    /// # Errors
    /// As [`Signals::next`].
    pub fn next_from(&self) -> io::Result<Option<(Signal, u32)>> {
        let Some(found) = self.source.read_signal()? else { return Ok(None) };
        let signal = i32::try_from(found.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
        Ok(signal.map(|signal| (signal, found.ssi_pid)))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// Makes this thread deaf to every signal that can be blocked: none of them interrupts or ends it.
///
/// # Errors
/// Not expected of the kernel.
pub fn block_all() -> io::Result<()> {
    Ok(SigSet::all().thread_block()?)
}

/// Default dispositions and an empty mask, as a program expects them. Exec keeps what is ignored or blocked
/// (signal(7)), and this program ignores SIGPIPE and blocks others.
pub(super) fn reset_for_exec() -> io::Result<()> {
    /// The kernel's highest signal number (`_NSIG`), which no library exports.
    const LAST: i32 = 64;
    /// At least the kernel's `struct sigaction`, which begins with the handler; zero is `SIG_DFL` without flags.
    const DEFAULT: [u64; 8] = [0; 8];
    /// Size of the kernel's `sigset_t`.
    const SET: usize = 8;
    for number in 1..=LAST {
        // SAFETY: the kernel reads a structure no larger than `DEFAULT`, and the default disposition runs no code of
        // ours. The library's own call would refuse the numbers that it keeps for itself. The kernel refuses SIGKILL and
        // SIGSTOP, which are always at their default.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), ptr::null::<u64>(), SET) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}
