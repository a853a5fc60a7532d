//! All descendants of this process: finding them, asking them to end, ending them.
//!
//! Without a PID namespace there is no single call that ends a tree whose members leave their session and process
//! group. What is dependable: this process adopts orphans ([`super::adopt_orphans`]), so that every descendant is
//! found from here; members are stopped before they are killed, so that none multiplies meanwhile; and the caller
//! repeats until [`super::reap`] says that nobody is left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

/// Most rounds of stopping in one call. A tree that still grows then is tried again by the caller.
const ROUNDS: usize = 256;

/// Asks every descendant to end (SIGTERM) and wakes those that are stopped, so that they can.
///
/// # Errors
/// `/proc` cannot be read.
pub fn continue_and_terminate() -> io::Result<()> {
    for pid in descendants()? {
        send(pid, Signal::SIGTERM);
        send(pid, Signal::SIGCONT);
    }
    Ok(())
}

/// Kills every descendant: stops them (SIGSTOP) until a round finds no new one, then kills what was found last.
///
/// One call may miss a process that was being born; call again on each wake-up until [`super::reap`] answers
/// [`super::Reaped::Nobody`]. A process that was stopped and is then found not to be a descendant (its number was
/// used again between look and signal) is continued, not killed.
///
/// # Errors
/// `/proc` cannot be read.
pub fn freeze_and_kill() -> io::Result<()> {
    let mut stopped = BTreeSet::new();
    let mut found = descendants()?;
    for _ in 0..ROUNDS {
        let new: Vec<Pid> = found.difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            send(pid, Signal::SIGSTOP);
            stopped.insert(pid);
        }
        found = descendants()?;
    }
    for pid in &found {
        send(*pid, Signal::SIGKILL);
    }
    for pid in stopped.difference(&found) {
        send(*pid, Signal::SIGCONT);
    }
    Ok(())
}

/// How many children this process's parent has besides this one, as far as `/proc` says.
#[must_use]
pub fn siblings() -> usize {
    let (own, above) = (getpid(), getppid());
    let found = if has_lists(above) { children(above) } else { only_children(above) };
    found.into_iter().filter(|pid| *pid != own).count()
}

/// One that has just ended needs no signal, and one that changed its user cannot be given one.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Every descendant, zombies included. Only as true as the moment: see [`freeze_and_kill`].
fn descendants() -> io::Result<BTreeSet<Pid>> {
    let own = getpid();
    if has_lists(own) { Ok(by_children(own)) } else { by_parents(own) }
}

/// Whether the kernel lists the children of a process.
fn has_lists(pid: Pid) -> bool {
    Path::new("/proc").join(pid.to_string()).join("task").join(pid.to_string()).join("children").exists()
}

/// Down the tree along `/proc/PID/task/TID/children` (`proc_pid_task(5)`; needs `CONFIG_PROC_CHILDREN`).
fn by_children(root: Pid) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children(pid) {
            if child != root && found.insert(child) {
                open.push(child);
            }
        }
    }
    found
}

/// The children of all threads of a process; none of one that is gone.
fn children(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_ascii_whitespace().filter_map(number).collect::<Vec<_>>());
    pids.collect()
}

/// Through the parent of every process of the host.
fn by_parents(root: Pid) -> io::Result<BTreeSet<Pid>> {
    let parents = parents()?;
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(above) = open.pop() {
        let below = parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid);
        open.extend(below.filter(|pid| found.insert(*pid)));
    }
    Ok(found)
}

fn only_children(above: Pid) -> Vec<Pid> {
    let parents = parents().unwrap_or_default();
    parents.into_iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| pid).collect()
}

/// Every process with its parent.
fn parents() -> io::Result<Vec<(Pid, Pid)>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(number) else { continue };
        parents.extend(parent(pid).map(|parent| (pid, parent)));
    }
    Ok(parents)
}

/// The fourth field of `/proc/PID/stat`; the second, the name, may itself hold blanks and brackets.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    let (_, behind_name) = text.rsplit_once(") ")?;
    number(behind_name.split_ascii_whitespace().nth(1)?)
}

fn number(text: &str) -> Option<Pid> {
    text.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd;

    use super::*;
    use crate::sys::pipe;
    use crate::sys::process::tests::{chain_of_sessions, in_a_process};
    use crate::sys::process::{Fork, end, fork};

    #[test]
    fn both_ways_of_looking_find_the_same_descendants() {
        let text = in_a_process("descendants", || {
            chain_of_sessions(3);
            let (down, up) = (by_children(getpid()), by_parents(getpid()).unwrap());
            freeze_and_kill().unwrap();
            format!("{} {}", down.len(), down == up)
        });
        assert_eq!(text, "3 true");
    }

    #[test]
    fn both_ways_of_looking_find_the_same_siblings() {
        let text = in_a_process("siblings", || {
            // The others end when nobody writes to them any more.
            let (reader, writer) = pipe::pipe().unwrap();
            for _ in 0..2 {
                if let Fork::Child = fork().unwrap() {
                    let _ = unistd::close(writer.as_raw_fd());
                    drop(pipe::read(&reader, &mut [0]));
                    end(0);
                }
            }
            let Fork::Parent(child) = fork().unwrap() else {
                let up = only_children(getppid()).into_iter().filter(|pid| *pid != getpid()).count();
                end(i32::from(!(up == 2 && siblings() == 2)))
            };
            let status = waitpid(child, None);
            drop(writer);
            matches!(status, Ok(WaitStatus::Exited(_, 0))).to_string()
        });
        assert_eq!(text, "true");
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent(getpid()), Some(nix::unistd::getppid()));
        assert_eq!(parent(Pid::from_raw(i32::MAX)), None);
    }
}
