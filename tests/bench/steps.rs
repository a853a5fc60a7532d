//! What executors execute for orders, one instruction at a time, for the list of what belongs together (`cargo xtask usual`).
//! ptrace(2) follows their children into namespaces of their own, which valgrind does not.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::fmt::Write as _;
use std::path::PathBuf;

use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::executor::{Executor, Host};
use crate::process;

/// How many orders each executor is given: the first has it make a monitor, which has to make everything for its run; the others
/// find made what can be. A step takes 50 us.
const ORDERS: u64 = 4;

const EXECUTES: c_int = Event::PTRACE_EVENT_EXEC as c_int;

/// The word is the file that the addresses go to, a line each, in the binary's own count.
pub(crate) fn help(words: &[&str]) {
    let binary = PathBuf::from(std::env::var_os("CTRL_EXEC_BIN").unwrap());
    let host = Host::new();
    let mut all = BTreeSet::new();
    let mut watch = |executor: &Executor, service| {
        all.extend(executed(service, || (0..ORDERS).for_each(|_| executor.order())));
    };
    for executor in [Executor::private(&binary, &host), Executor::system(&binary, &host)] {
        watch(&executor, executor.pid());
    }
    let own = Executor::own(&binary, &host);
    // The keeper has its service with the first order at the latest.
    own.order();
    watch(&own, *process::children(own.pid()).first().unwrap());
    let text = all.into_iter().fold(String::new(), |mut text, address| {
        writeln!(text, "{address:x}").unwrap();
        text
    });
    std::fs::write(words.first().unwrap(), text).unwrap();
}

/// What a process and all that it forks execute while `meanwhile` goes on, up to the next program. They are killed then.
fn executed(process: u32, meanwhile: impl FnOnce() + Send) -> BTreeSet<u64> {
    let (text, main) = (text(process), Pid::from_raw(process.try_into().unwrap()));
    let children = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    ptrace::seize(main, children | Options::PTRACE_O_TRACEEXEC).unwrap();
    ptrace::interrupt(main).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            meanwhile();
            kill(main, Signal::SIGKILL).unwrap();
        });
        let (mut seen, mut traced) = (BTreeSet::new(), BTreeSet::from([main]));
        while !traced.is_empty() {
            let (stopped, signal) = match waitpid(None, Some(WaitPidFlag::__WALL)).unwrap() {
                WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..) => {
                    traced.remove(&ended);
                    if ended == main {
                        for left in &traced {
                            let _ = kill(*left, Signal::SIGKILL);
                        }
                    }
                    continue;
                }
                WaitStatus::PtraceEvent(other, _, EXECUTES) => {
                    traced.remove(&other);
                    ptrace::detach(other, None).unwrap();
                    continue;
                }
                WaitStatus::Stopped(stopped, signal) if signal != Signal::SIGTRAP => (stopped, Some(signal)),
                WaitStatus::Stopped(stopped, _) | WaitStatus::PtraceEvent(stopped, ..) => (stopped, None),
                _ => continue,
            };
            traced.insert(stopped);
            // One that was killed meanwhile has nothing to be seen.
            if let Ok(registers) = ptrace::getregs(stopped) {
                seen.extend(at(&registers).checked_sub(text.start).filter(|address| *address < text.end - text.start));
            }
            let _ = ptrace::step(stopped, signal);
        }
        seen
    })
}

#[cfg(target_arch = "x86_64")]
const fn at(registers: &nix::libc::user_regs_struct) -> u64 {
    registers.rip
}

#[cfg(target_arch = "aarch64")]
const fn at(registers: &nix::libc::user_regs_struct) -> u64 {
    registers.pc
}

/// Where the program of a process lies in its memory.
fn text(process: u32) -> std::ops::Range<u64> {
    let program = std::fs::read_link(format!("/proc/{process}/exe")).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let own = maps.lines().filter(|line| line.ends_with(program.to_str().unwrap()));
    let ends = own.filter_map(|line| line.split(' ').next()?.split_once('-'));
    let ends: Vec<_> =
        ends.map(|(start, end)| [start, end].map(|text| u64::from_str_radix(text, 16).unwrap())).collect();
    ends.first().unwrap()[0]..ends.last().unwrap()[1]
}
