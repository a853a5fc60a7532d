//! What a process has from whoever started it and hands on to all that it starts, and a usual state in its place.
//!
//! A shell's `nice` or `taskset` and the settings of a service manager go down with fork(2) and execve(2) as far as there
//! are processes. Two kinds of them are told apart here:
//!
//! - what any process sets for itself as it likes is put to a fixed value;
//! - what is the host's to decide stays: the control group with its processors and weights, namespaces, filters of system
//!   calls, and hard limits. They can only be narrowed by whoever is below them, and so are a decision of somebody with more
//!   rights about everything below.
//!
//! Between the two are the processors and the weight when memory runs out: the kernel's parameters and a container's runtime
//! decide about these too, and tell the first process.

use std::fmt::Display;
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::call::{Numbers, call};
use super::{memory, process};

/// `TIMER_SLACK` of the kernel's first process (`PR_SET_TIMERSLACK`, prctl(2)), in nanoseconds.
const TIMER_SLACK: u64 = 50_000;
/// What the kernel puts into a core (core(5)).
const CORE_FILTER: &str = "0x33";
/// The first process of this process namespace.
const FIRST: Pid = Pid::from_raw(1);
/// This process.
const SELF: Pid = Pid::from_raw(0);

/// A limit of getrlimit(2).
struct Limit {
    resource: Resource,
    /// What it is called in `/proc/PID/limits`, in small letters.
    name: &'static str,
    /// The soft limit, in its own unit; never above the hard one.
    soft: u64,
    /// Whether it is told where the hard one is below: programs would fail for want of it.
    told: bool,
}

impl Limit {
    const fn new(resource: Resource, name: &'static str, soft: u64, told: bool) -> Self {
        Self { resource, name, soft, told }
    }
}

/// The kernel's own soft limits, but for those that it reckons by the size of the memory: these are the hard ones. Open files
/// are not among them, since a service may need more of its own ([`super::descriptors`]).
const LIMITS: [Limit; 13] = [
    Limit::new(Resource::RLIMIT_CPU, "cpu time", RLIM_INFINITY, true),
    Limit::new(Resource::RLIMIT_FSIZE, "file size", RLIM_INFINITY, true),
    Limit::new(Resource::RLIMIT_DATA, "data size", RLIM_INFINITY, true),
    Limit::new(Resource::RLIMIT_STACK, "stack size", 8 << 20, true),
    Limit::new(Resource::RLIMIT_CORE, "core file size", 0, false),
    Limit::new(Resource::RLIMIT_RSS, "resident set", RLIM_INFINITY, false),
    Limit::new(Resource::RLIMIT_NPROC, "processes", RLIM_INFINITY, false),
    Limit::new(Resource::RLIMIT_MEMLOCK, "locked memory", 8 << 20, false),
    Limit::new(Resource::RLIMIT_AS, "address space", RLIM_INFINITY, true),
    Limit::new(Resource::RLIMIT_LOCKS, "file locks", RLIM_INFINITY, false),
    Limit::new(Resource::RLIMIT_SIGPENDING, "pending signals", RLIM_INFINITY, false),
    Limit::new(Resource::RLIMIT_MSGQUEUE, "msgqueue size", 819_200, false),
    Limit::new(Resource::RLIMIT_RTTIME, "realtime timeout", RLIM_INFINITY, true),
];

/// Limits on what a process may take before others: with one above 0 it needs no right for it. Rights are a profile's to give.
const PRECEDENCE: [Resource; 2] = [Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO];

/// Puts this process, and so all that it will start, into the usual state. Returns what could not be put right, or what the
/// host keeps narrower, each in a few words.
#[must_use]
pub fn put_right() -> Vec<String> {
    let mut left = Left(Vec::new());
    left.unless("scheduling policy", call(Numbers::Policy { process: 0, policy: libc::SCHED_OTHER }));
    left.unless("niceness", call(Numbers::Niceness { process: 0, value: 0 }));
    left.unless("i/o priority", call(Numbers::NoIoPriority));
    // Where there is one kind of memory, or a runtime keeps the call away, nobody has set it either.
    drop(call(Numbers::AnyMemory));
    left.unless("timer slack", prctl::set_timerslack(TIMER_SLACK));
    left.unless("personality", personality());
    memory::allow_huge_pages(true);
    left.unless("processors", processors());
    left.unless("oom_score_adj", weight_without_memory());
    // Where every run has its own, whoever can have none for want of room has this one, on which no key is.
    left.unless("session keyring", process::own_keyring());
    // A kernel without cores has no such file.
    drop(fs_write("coredump_filter", CORE_FILTER));
    for limit in &LIMITS {
        left.limit(limit);
    }
    for resource in PRECEDENCE {
        // Nobody is kept from lowering one.
        let _ = setrlimit(resource, 0, 0);
    }
    left.0
}

/// Takes half of the signals that may wait for one user from this process, and from all that it will start. What takes one of
/// root's and has not done this, such as a timer (`timer_create(2)`), gets it whatever those do who have.
///
/// # Errors
/// Not expected of the kernel.
pub fn leave_half_of_the_signals() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_SIGPENDING)?;
    // Of no limit nothing is taken from anybody.
    let half = if hard == RLIM_INFINITY { hard } else { hard / 2 };
    Ok(setrlimit(Resource::RLIMIT_SIGPENDING, half, half)?)
}

/// From now on no signal waits for this process that somebody queues (sigqueue(3)), real-time signals least of all. What
/// kill(2) sends and the kernel does arrives all the same, one of each.
///
/// # Errors
/// Not expected of the kernel.
pub fn leave_all_signals() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_SIGPENDING, 0, 0)?)
}

/// What is not as it should be.
struct Left(Vec<String>);

impl Left {
    fn unless<T, E: Display>(&mut self, what: &str, done: Result<T, E>) {
        if let Err(error) = done {
            self.0.push(format!("{what} ({error})"));
        }
    }

    fn limit(&mut self, limit: &Limit) {
        let Limit { resource, name, soft, told } = limit;
        let done = getrlimit(*resource).and_then(|(_, hard)| {
            setrlimit(*resource, hard.min(*soft), hard)?;
            Ok(hard)
        });
        if let Ok(hard) = done
            && *told
            && hard < *soft
        {
            self.0.push(format!("{name} at most {hard}"));
        }
        self.unless(name, done);
    }
}

/// The plain one (personality(2)). A service that is kept from changing it need not, if it has that.
fn personality() -> io::Result<()> {
    let Err(error) = call(Numbers::PlainPersonality) else { return Ok(()) };
    let own = fs::read_to_string("/proc/self/personality").unwrap_or_default();
    if own.trim().bytes().all(|digit| digit == b'0') && !own.is_empty() { Ok(()) } else { Err(error) }
}

/// Those of the first process. The kernel leaves out what the control group has not.
fn processors() -> io::Result<()> {
    // On a machine with more of them than this can hold, they stay as they are.
    let (Ok(first), Ok(own)) = (sched_getaffinity(FIRST), sched_getaffinity(SELF)) else { return Ok(()) };
    match sched_setaffinity(SELF, &first) {
        // The control group has others.
        Err(Errno::EINVAL) => Ok(()),
        Err(error) if first != own => Err(error.into()),
        _ => Ok(()),
    }
}

/// As that of the first process, but never protected.
fn weight_without_memory() -> io::Result<()> {
    let number = |process: &str| {
        let text = fs::read_to_string(format!("/proc/{process}/oom_score_adj")).ok()?;
        text.trim().parse::<i32>().ok()
    };
    let (wanted, own) = (number("1").unwrap_or(0).max(0), number("self"));
    if own == Some(wanted) { Ok(()) } else { fs_write("oom_score_adj", &wanted.to_string()) }
}

/// Writes to a file of this process in `/proc`.
fn fs_write(name: &str, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(format!("/proc/self/{name}"))?;
    io::Write::write_all(&mut file, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::tests::in_a_process;

    #[test]
    fn what_can_be_put_right_is_and_what_the_host_keeps_is_told() {
        let text = in_a_process("inherited", || {
            setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, 1 << 30).unwrap();
            setrlimit(Resource::RLIMIT_STACK, 1 << 20, RLIM_INFINITY).unwrap();
            prctl::set_timerslack(7).unwrap();
            call(Numbers::Niceness { process: 0, value: 3 }).unwrap();
            let told = put_right();
            let limits = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_STACK].map(|limit| getrlimit(limit).unwrap().0);
            let slack = prctl::get_timerslack().unwrap();
            let told: Vec<&str> = told.iter().map(String::as_str).filter(|word| word.starts_with("file")).collect();
            format!("{limits:?} {slack} {told:?}")
        });
        assert_eq!(text, "[1073741824, 8388608] 50000 [\"file size at most 1073741824\"]");
    }
}
