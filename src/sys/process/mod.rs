//! Processes: making them, waiting for them, ending whole trees of them.

mod detached;
mod fault;
mod mark;
mod patience;
mod private;
mod program;
mod signals;
mod spawn;
mod tree;

use std::io::{self, Read as _};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{self, ForkResult};

use crate::sys::call::{Numbers, call};
use crate::sys::capability;

pub use detached::{Launch, launch, report_ready};
pub use fault::{Failure, Fault};
pub use mark::{Family, Outlook, Run, free_others, leave_family};
pub use nix::sys::signal::Signal;
pub use nix::unistd::Pid;
pub use patience::end_unless_program_within;
pub use private::{become_private, control_from_stdin, spawn_private};
pub use program::{Program, Trial};
pub use signals::{Held, Signals, block_all, default_for_good, hold};
pub use spawn::{Expected, Spawn, Spawned, keep_only};
pub use tree::{children, continue_and_terminate, freeze_and_kill, freeze_and_kill_but, is_descendant, siblings};

/// The system's error number for a file that is neither a program nor a script (`ENOEXEC`, execve(2)).
pub const NOT_A_PROGRAM: i32 = libc::ENOEXEC;

/// Which side of a [`fork`] this is.
#[derive(Clone, Copy, Debug)]
pub enum Fork {
    /// The new process. It must end with [`end`] and never return to what its parent was doing.
    Child,
    /// The old process, with the new one's id.
    Parent(Pid),
}

/// Copies this process (fork(2)).
///
/// **Invariant:** the caller has one thread. A lock that another thread held would stay locked in the child for ever.
///
/// # Errors
/// Out of processes or memory.
pub fn fork() -> io::Result<Fork> {
    #[expect(unsafe_code, reason = "fork is only sound where nothing is locked elsewhere")]
    // SAFETY: the callers are the executor and its monitors, which have one thread (the invariant above), so the child
    // may use everything, memory allocation included.
    let side = unsafe { unistd::fork() }?;
    Ok(match side {
        ForkResult::Child => Fork::Child,
        ForkResult::Parent { child } => Fork::Parent(child),
    })
}

/// Starts a process that borrows this one's memory until it executes a program or ends, while this one waits
/// (`CLONE_VM | CLONE_VFORK`, clone(2)). Nothing is copied, so that it costs a third of a [`fork`].
///
/// `work` runs in the new process; if it returns, the process ends. What it does to memory is seen here afterwards:
/// descriptors that it closes are closed there alone, so it must not drop those that are owned here.
///
/// **Invariant:** as [`fork`], the caller has one thread.
///
/// # Errors
/// As [`fork`].
pub fn fork_for_exec(work: impl FnMut()) -> io::Result<Pid> {
    borrowing(0, work)
}

/// Does `work` in a process of its own that shares this one's memory and descriptors, and ends: what it becomes, and whatever
/// else of a process's own it changes, ends with it.
///
/// **Invariant:** as [`fork`], the caller has one thread.
///
/// # Errors
/// That of `work`, or as [`fork`], or somebody has killed the process.
pub fn aside<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (mut work, mut result) = (Some(work), None);
    let child = borrowing(libc::CLONE_FILES, || result = work.take().map(|work| work()))?;
    // It has ended; this is to bury it, whatever it ended by.
    let _ = waitpid(child, None);
    result.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))
}

/// A process that borrows memory, and shares what `shared` says.
fn borrowing(shared: i32, mut work: impl FnMut()) -> io::Result<Pid> {
    /// Bytes of stack; only what is used is ever real.
    const STACK: usize = 1 << 20;
    let mut work: &mut dyn FnMut() = &mut work;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | shared | libc::SIGCHLD;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK);
    #[expect(unsafe_code, reason = "clone has no safe binding")]
    // SAFETY: the stack is a mapping of this function's own, aligned to a page and the child's alone; the argument leads to
    // `work`, which is live; and this process does not go on, to take the stack away, before the child uses neither any
    // more. It comes from the system and not from the allocator, whose bookkeeping for a piece of this size touches many
    // pages, each of them to be copied for a process that was just forked.
    unsafe {
        let stack = libc::mmap(std::ptr::null_mut(), STACK, access, kind, -1, 0);
        if stack == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pid = libc::clone(run_and_end, stack.byte_add(STACK), flags, (&raw mut work).cast());
        let result = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) };
        libc::munmap(stack, STACK);
        result
    }
}

/// The child of [`borrowing`], from its first instruction.
extern "C" fn run_and_end(work: *mut libc::c_void) -> libc::c_int {
    #[expect(unsafe_code, reason = "an argument of clone is untyped")]
    // SAFETY: `borrowing`, the only caller, passes a pointer of this type to a live value that nobody else uses.
    let work = unsafe { &mut *work.cast::<&mut dyn FnMut()>() };
    work();
    end(FAILED)
}

/// Status of a new process that did not become its program; its parent learns the reason in another way.
const FAILED: i32 = 127;

/// Ends this process at once, running no exit handlers: those of a forked one belong to its parent.
pub fn end(status: i32) -> ! {
    #[expect(unsafe_code, reason = "_exit has no safe binding")]
    // SAFETY: `_exit` takes a number and does not return.
    unsafe {
        libc::_exit(status)
    }
}

/// Leaves the parent's session and process group, so that signals meant for those do not arrive.
///
/// # Errors
/// This process leads a process group already.
pub fn own_session() -> io::Result<()> {
    Ok(unistd::setsid().map(drop)?)
}

/// Leaves the session keyring, and whatever keys are on it, for a new and empty one (session-keyring(7)). Where keyctl(2)
/// is not there or not allowed, nobody below this process can use a key either.
///
/// # Errors
/// Out of memory, or the user has too many keys.
pub fn own_keyring() -> io::Result<()> {
    match call(Numbers::JoinNewSessionKeyring) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        joined => joined.map(drop),
    }
}

/// As [`own_keyring`], for a program that will be kept from all calls that use keys: where the user has too many of them, the
/// session keyring that this process has will do, if no key is on it.
///
/// # Errors
/// As [`own_keyring`].
pub fn own_or_empty_keyring() -> io::Result<()> {
    match own_keyring() {
        Err(error) if error.raw_os_error() == Some(libc::EDQUOT) && call(Numbers::SizeOfSessionKeyring)? == 0 => Ok(()),
        joined => joined,
    }
}

/// Becomes the parent of every descendant whose own parent ends (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
///
/// # Errors
/// The kernel is older than 3.4.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Sends a signal to a process group, if it is still there.
pub fn signal_group(leader: Pid, signal: Signal) {
    // One that is gone needs none.
    let _ = killpg(leader, signal);
}

/// Sends a signal to a process that this one has not waited for yet, so that its number is still its own.
pub fn signal(child: Pid, signal: Signal) {
    // One that has ended needs none.
    let _ = kill(child, signal);
}

/// Sends a signal to every process that this one may signal but itself; in the first process of a namespace, to everyone
/// else in it (kill(2)).
pub fn signal_everyone(signal: Signal) {
    // Nobody is left.
    let _ = kill(Pid::from_raw(-1), signal);
}

/// The kernel kills this process when its parent ends, and from now on no other process may look into it.
///
/// # Errors
/// Not expected of the kernel.
pub fn die_with_parent() -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let_nobody_look()
}

/// From now on no other process of this account may look into this one (`PR_SET_DUMPABLE`, prctl(2)): the kernel's rule for
/// one that has given up root, until it executes a program.
///
/// # Errors
/// Not expected of the kernel.
pub fn let_nobody_look() -> io::Result<()> {
    Ok(prctl::set_dumpable(false)?)
}

/// `CAP_SYS_NICE`.
const MAY_HURRY: u8 = 23;

/// From now on others go before a child where they compete for a processor: every time if [`hurry`] can take that back, so that
/// it is never in the way of who is woken; else most of the time (sched(7), setpriority(2)).
///
/// # Errors
/// There is no such process; or it gave way more already, and that may not be taken back.
pub fn give_way(child: Pid) -> io::Result<()> {
    /// Half way to the lowest: a tenth of the share of others.
    const NICENESS: i32 = 10;
    let process = child.as_raw();
    let least = Numbers::Policy { process, policy: libc::SCHED_IDLE };
    let less = Numbers::Niceness { process, value: NICENESS };
    call(if capability::is_in_force(MAY_HURRY)? { least } else { less }).map(drop)
}

/// From now on a child that gave way goes first or last as any other process. Where that is not allowed, or it is gone, all stays
/// as it is.
pub fn hurry(child: Pid) {
    drop(call(Numbers::Policy { process: child.as_raw(), policy: libc::SCHED_OTHER }));
    drop(call(Numbers::Niceness { process: child.as_raw(), value: 0 }));
}

/// This process's id, in its own namespace.
#[must_use]
pub fn own_id() -> Pid {
    unistd::getpid()
}

/// Whether a process is in the same process namespace as this one, and not in one further in, as a confined script is
/// (`NSpid`, `proc_pid_status(5)`).
///
/// # Errors
/// The process is gone, or is in a namespace that this one cannot see into; there is no `/proc`.
pub fn is_a_neighbour(pid: Pid) -> io::Result<bool> {
    static OWN: OnceLock<usize> = OnceLock::new();
    let own = OWN.get().copied().map_or_else(|| depth("self"), Ok)?;
    Ok(depth(&pid.to_string())? == *OWN.get_or_init(|| own))
}

/// In how many process namespaces a process is, those around its own counted.
fn depth(process: &str) -> io::Result<usize> {
    // Read at once: the kernel makes the whole text anew for each piece.
    let mut text = Vec::with_capacity(4096);
    std::fs::File::open(format!("/proc/{process}/status"))?.read_to_end(&mut text)?;
    let numbers = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"));
    let count = |numbers: &[u8]| String::from_utf8_lossy(numbers).split_whitespace().count();
    numbers.map(count).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Permissions that new files do not get.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with a status from 0 to 255.
    Exited(u8),
    /// By a signal with this number.
    Signalled(i32),
}

/// What waiting without patience found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// This child has ended and is gone.
    Child(Pid, End),
    /// There are children, and none has ended since the last call.
    Running,
    /// There are no children. After [`adopt_orphans`]: no descendants either.
    Nobody,
}

/// What waiting for several found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// As many as are taken note of at once have ended, and there may be more.
    More,
    /// As [`Reaped::Running`].
    Running,
    /// As [`Reaped::Nobody`].
    Nobody,
}

/// So many ended children are taken note of at once by [`reap_some`].
const AT_ONCE: usize = 64;

/// Takes note of one ended child, without waiting.
///
/// # Errors
/// Not expected of the kernel.
pub fn reap() -> io::Result<Reaped> {
    loop {
        match wait_once()? {
            Waited::Stopped => {}
            Waited::For(found) => return Ok(found),
        }
    }
}

/// Takes note of ended children, without waiting, and of so many only that whoever calls has time for other things, too:
/// who makes children faster than they are buried here would keep this process busy for ever.
///
/// # Errors
/// Not expected of the kernel.
pub fn reap_some(mut each: impl FnMut(Pid, End)) -> io::Result<Rest> {
    for _ in 0..AT_ONCE {
        match wait_once()? {
            Waited::Stopped => {}
            Waited::For(Reaped::Child(pid, end)) => each(pid, end),
            Waited::For(Reaped::Running) => return Ok(Rest::Running),
            Waited::For(Reaped::Nobody) => return Ok(Rest::Nobody),
        }
    }
    Ok(Rest::More)
}

/// Whether a process is a child of this one that was not waited for, alive or not.
#[must_use]
pub fn is_child(pid: Pid) -> bool {
    look_at(Id::Pid(pid)) != Err(Errno::ECHILD)
}

/// Whether a process is no child of this one that lives.
#[must_use]
pub fn has_ended(child: Pid) -> bool {
    look_at(Id::Pid(child)) != Ok(WaitStatus::StillAlive)
}

/// Waits for nobody. How a child has ended may be something that the binding has no word for.
fn look_at(whom: Id<'_>) -> Result<WaitStatus, Errno> {
    waitid(whom, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT)
}

/// Whether this process has any child that was not waited for. After [`adopt_orphans`]: any descendant.
#[must_use]
pub fn has_children() -> bool {
    look_at(Id::All) != Err(Errno::ECHILD)
}

enum Waited {
    For(Reaped),
    /// One that has asked to be traced has stopped (ptrace(2)), which nobody here wants to know.
    Stopped,
}

fn wait_once() -> io::Result<Waited> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "the safe binding loses a child that a real-time signal ended")]
    // SAFETY: `status` is a live, writable integer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    match pid {
        0 => Ok(Waited::For(Reaped::Running)),
        1.. if libc::WIFSTOPPED(status) => Ok(Waited::Stopped),
        1.. => Ok(Waited::For(Reaped::Child(Pid::from_raw(pid), end_of(status)))),
        _ => match Errno::last() {
            Errno::ECHILD => Ok(Waited::For(Reaped::Nobody)),
            errno => Err(errno.into()),
        },
    }
}

/// The two ways in which a process that was waited for without `WUNTRACED` can have ended (waitpid(2)).
fn end_of(status: i32) -> End {
    if libc::WIFSIGNALED(status) {
        End::Signalled(libc::WTERMSIG(status))
    } else {
        End::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
    }
}

#[cfg(test)]
pub(crate) mod tests;
