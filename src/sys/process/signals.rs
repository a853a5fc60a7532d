//! Signals as something to poll, and signals as a new program expects them.
#![expect(unsafe_code, reason = "setting a disposition has no safe binding")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

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

    /// As [`Signals::collect`], and lets through all others that may have been blocked: those that this process neither collects
    /// nor handles never wait for it. In the first process of a namespace the kernel drops them (`pid_namespaces(7)`).
    ///
    /// # Errors
    /// As [`Signals::collect`].
    pub fn collect_only(wanted: &[Signal]) -> io::Result<Self> {
        let mask: SigSet = wanted.iter().copied().collect();
        mask.thread_set_mask()?;
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

/// Signals that wait until the process knows what to do about them: see [`hold`].
#[derive(Debug)]
#[must_use = "what is held waits until it is released"]
pub struct Held(SigSet);

/// Has signals wait that would end the process as long as it has no handlers for them (signal(7)). Also those that it
/// ignores: what is blocked is kept.
///
/// **Invariant:** the caller has one thread, and releases them in the same one.
///
/// # Errors
/// Not expected of the kernel.
pub fn hold(signals: &[Signal]) -> io::Result<Held> {
    let mask: SigSet = signals.iter().copied().collect();
    mask.thread_block()?;
    Ok(Held(mask))
}

impl Held {
    /// Lets them through, those that have waited first. Without it they wait for the end of the process.
    ///
    /// # Errors
    /// Not expected of the kernel.
    pub fn release(self) -> io::Result<()> {
        Ok(self.0.thread_unblock()?)
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
    if !ALL_DEFAULT.load(Ordering::Relaxed) {
        put_all_to_default();
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Whether every disposition of this process is the default. Processes that it makes have both from it.
static ALL_DEFAULT: AtomicBool = AtomicBool::new(false);

/// Gives this process default dispositions for good, which those that it makes then need not ask for one by one.
///
/// **Invariant:** it is deaf to signals ([`block_all`]), and nothing in it wants a handler later.
pub fn default_for_good() {
    put_all_to_default();
    ALL_DEFAULT.store(true, Ordering::Relaxed);
}

fn put_all_to_default() {
    /// The kernel's highest signal number (`_NSIG`), which no library exports.
    const LAST: i32 = 64;
    for number in 1..=LAST {
        // The kernel refuses SIGKILL and SIGSTOP, which are always at their default.
        drop(exchange(number, DEFAULT));
    }
}

/// What a process does about a signal, as the kernel has it.
#[derive(Clone, Copy, Debug)]
struct Disposition([usize; 16]);

/// `SIG_DFL` and `SIG_IGN` without flags. At least the kernel's `struct sigaction`, which begins with the handler.
const DEFAULT: Disposition = Disposition([0; 16]);
const IGNORED: Disposition = Disposition([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);

/// Puts a disposition in place and gives back the one that was there: the only other one that there can be.
fn exchange(number: i32, new: Disposition) -> io::Result<Disposition> {
    /// Size of the kernel's `sigset_t`.
    const SET: usize = 8;
    let mut old = DEFAULT;
    // SAFETY: the kernel reads and writes structures no larger than these. The dispositions are the default and to
    // ignore, which run no code of ours, or one that this call gave back, which was in force before. The library's own
    // call would refuse the numbers that it keeps for itself.
    let result = unsafe {
        let (new, old) = (new.0.as_ptr(), old.0.as_mut_ptr());
        libc::syscall(libc::SYS_rt_sigaction, number, new, old, SET)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(old) }
}

/// Dispositions that were replaced for the time until another program runs here.
#[derive(Debug)]
pub(super) struct Replaced(Vec<(i32, Disposition)>);

impl Replaced {
    /// Ignores some signals, and lets others end the process. Exec would give those that have handlers back to their
    /// default, which for most of them is to end the process; but those that are ignored stay so until the program has
    /// handlers of its own.
    pub(super) fn new(ignored: &[Signal], default: &[Signal]) -> io::Result<Self> {
        let wanted = ignored.iter().map(|signal| (*signal, IGNORED));
        let wanted = wanted.chain(default.iter().map(|signal| (*signal, DEFAULT)));
        let mut replaced = Self(Vec::new());
        for (signal, disposition) in wanted {
            replaced.0.push((signal as i32, exchange(signal as i32, disposition)?));
        }
        Ok(replaced)
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        for (number, disposition) in &self.0 {
            // It was accepted before.
            drop(exchange(*number, *disposition));
        }
    }
}
