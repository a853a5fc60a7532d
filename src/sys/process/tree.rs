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
    freeze_and_kill_found(descendants).map(drop)
}

/// As [`freeze_and_kill`], sparing these children with their own descendants. Returns whom it has killed: who adopts orphans
/// ([`super::adopt_orphans`]) hears of the end of each.
///
/// # Errors
/// As [`freeze_and_kill`].
pub fn freeze_and_kill_but(spared: &BTreeSet<Pid>) -> io::Result<BTreeSet<Pid>> {
    freeze_and_kill_found(|| descendants_but(spared))
}

/// Whether a process is a descendant of this one, zombies included. It may lose its parents meanwhile.
#[must_use]
pub fn is_descendant(pid: Pid) -> bool {
    let own = getpid();
    let mut at = pid;
    loop {
        match parent(at) {
            Some(above) if above == own => return true,
            // Whose parent is not in this namespace has 0.
            Some(above) if above.as_raw() > 1 => at = above,
            None if at != pid => at = pid,
            Some(_) | None => return false,
        }
    }
}

/// Every descendant of this process but these children and theirs, zombies included. Only as true as the moment: who ends
/// meanwhile leaves his own children to whoever adopts them, where they may be missed.
fn descendants_but(spared: &BTreeSet<Pid>) -> io::Result<BTreeSet<Pid>> {
    let others: Vec<Pid> = self::children()?.into_iter().filter(|pid| !spared.contains(pid)).collect();
    let below = if has_lists(getpid()) { by_children(others.clone()) } else { by_parents(others.clone())? };
    Ok(below.into_iter().chain(others).collect())
}

/// The children of this process, as far as `/proc` says.
///
/// # Errors
/// It cannot be read.
pub fn children() -> io::Result<BTreeSet<Pid>> {
    let own = getpid();
    let found = if has_lists(own) { children_of(own) } else { children_by_parents(own)? };
    Ok(found.into_iter().collect())
}

fn freeze_and_kill_found(look: impl Fn() -> io::Result<BTreeSet<Pid>>) -> io::Result<BTreeSet<Pid>> {
    let mut stopped = BTreeSet::new();
    let mut found = look()?;
    for _ in 0..ROUNDS {
        let new: Vec<Pid> = found.difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            send(pid, Signal::SIGSTOP);
            stopped.insert(pid);
        }
        found = look()?;
    }
    // Whoever's parent has ended since was looked for where he was no more.
    found.extend(stopped.iter().copied().filter(|pid| is_descendant(*pid)));
    for pid in &found {
        send(*pid, Signal::SIGKILL);
    }
    for pid in stopped.difference(&found) {
        send(*pid, Signal::SIGCONT);
    }
    Ok(found)
}

/// How many children this process's parent has besides this one, as far as `/proc` says.
#[must_use]
pub fn siblings() -> usize {
    let (own, above) = (getpid(), getppid());
    let found = if has_lists(above) { children_of(above) } else { children_by_parents(above).unwrap_or_default() };
    found.into_iter().filter(|pid| *pid != own).count()
}

/// One that has just ended needs no signal, and one that changed its user cannot be given one.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// Every descendant, zombies included. Only as true as the moment: see [`freeze_and_kill`].
fn descendants() -> io::Result<BTreeSet<Pid>> {
    let own = getpid();
    if has_lists(own) { Ok(by_children(vec![own])) } else { by_parents(vec![own]) }
}

/// Whether the kernel lists the children of a process.
fn has_lists(pid: Pid) -> bool {
    Path::new("/proc").join(pid.to_string()).join("task").join(pid.to_string()).join("children").exists()
}

/// Down the tree along `/proc/PID/task/TID/children` (`proc_pid_task(5)`; needs `CONFIG_PROC_CHILDREN`).
fn by_children(roots: Vec<Pid>) -> BTreeSet<Pid> {
    let mut found = BTreeSet::new();
    let mut open = roots;
    while let Some(pid) = open.pop() {
        for child in children_of(pid) {
            if found.insert(child) {
                open.push(child);
            }
        }
    }
    found
}

/// The children of all threads of a process; none of one that is gone.
fn children_of(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let pids = lists.flat_map(|list| list.split_ascii_whitespace().filter_map(number).collect::<Vec<_>>());
    pids.collect()
}

/// Through the parent of every process of the host.
fn by_parents(roots: Vec<Pid>) -> io::Result<BTreeSet<Pid>> {
    let parents = parents()?;
    let mut found = BTreeSet::new();
    let mut open = roots;
    while let Some(above) = open.pop() {
        let below = parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid);
        open.extend(below.filter(|pid| found.insert(*pid)));
    }
    Ok(found)
}

fn children_by_parents(above: Pid) -> io::Result<Vec<Pid>> {
    Ok(parents()?.into_iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| pid).collect())
}

/// Every process with its parent.
fn parents() -> io::Result<Vec<(Pid, Pid)>> {
    Ok(everyone()?.into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect())
}

/// Every process that shows.
pub(super) fn everyone() -> io::Result<Vec<Pid>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        all.extend(entry?.file_name().to_str().and_then(number));
    }
    Ok(all)
}

/// Which state a process is in, by its letter.
pub(super) fn state(pid: Pid) -> Option<char> {
    field(pid, 0)?.chars().next()
}

/// Whose child a process is.
pub(super) fn parent(pid: Pid) -> Option<Pid> {
    number(&field(pid, 1)?)
}

/// A field of `/proc/PID/stat` behind the second, the name, which may itself hold blanks and brackets.
fn field(pid: Pid, place: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&stat);
    let (_, behind_name) = text.rsplit_once(") ")?;
    Some(behind_name.split_ascii_whitespace().nth(place)?.to_owned())
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
            let (down, up) = (by_children(vec![getpid()]), by_parents(vec![getpid()]).unwrap());
            freeze_and_kill().unwrap();
            format!("{} {}", down.len(), down == up)
        });
        assert_eq!(text, "3 true");
    }

    #[test]
    fn who_is_spared_lives_and_everybody_else_with_his_descendants_does_not() {
        let text = in_a_process("spared", || {
            crate::sys::process::adopt_orphans().unwrap();
            // It ends when nobody writes to it any more.
            let (reader, writer) = pipe::pipe().unwrap();
            let Fork::Parent(spared) = fork().unwrap() else {
                let _ = unistd::close(writer.as_raw_fd());
                drop(pipe::read(&reader, &mut [0]));
                end(7)
            };
            chain_of_sessions(3);
            let found = freeze_and_kill_but(&BTreeSet::from([spared])).unwrap();
            let mut gone = BTreeSet::new();
            while gone != found {
                gone.extend(waitpid(None, None).unwrap().pid());
            }
            let left = super::children().unwrap();
            drop(writer);
            let status = waitpid(spared, None).unwrap();
            format!("{} {} {}", found.len(), left.len(), status == WaitStatus::Exited(spared, 7))
        });
        assert_eq!(text, "3 1 true");
    }

    #[test]
    fn a_descendant_is_one_wherever_it_hangs_and_nobody_else_is() {
        let text = in_a_process("descends", || {
            chain_of_sessions(3);
            let below = by_children(vec![getpid()]);
            let all = below.iter().all(|pid| is_descendant(*pid));
            let others = [getpid(), getppid(), Pid::from_raw(1), Pid::from_raw(i32::MAX)];
            freeze_and_kill().unwrap();
            format!("{} {all} {}", below.len(), others.into_iter().any(is_descendant))
        });
        assert_eq!(text, "3 true false");
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
                let up = children_by_parents(getppid()).unwrap().into_iter().filter(|pid| *pid != getpid()).count();
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
