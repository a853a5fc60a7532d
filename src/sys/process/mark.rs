//! Finding what a run has started when whoever stood by it is gone.
//!
//! Without a PID namespace there is nothing that a process cannot leave: its parent, its session, its group, its environment, its
//! descriptors. But it has limits (getrlimit(2)), which go down with fork(2) and execve(2), and of which the kernel has not
//! enforced one since Linux 2.4: `RLIMIT_LOCKS`. So a number that nobody else would choose, put there as the soft limit before the
//! script is started, shows whose each of its descendants is, also after all of their ancestors. A script could take it off, as
//! it could do anything to its monitor; none does by accident.
//!
//! A mark says three things: whose runs they are ([`Family`]), which run, and the number of the monitor. The monitor has it
//! itself, and takes it off whoever its script leaves behind when that ends. So whoever has a mark and no monitor with the same
//! is left of a run that was cut off.
//!
//! **Invariant:** nobody gets a signal here but through a descriptor of the process ([`Opening::Process`]), after its mark was
//! read once more: numbers are used again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid, getpid};

use super::tree;
use crate::sys::call::{Numbers, Opening, call, open};

/// What every mark begins with: more locks than any process could ever want, and no way to say that there is no limit.
const SIGN: u64 = 0b01_0101 << (2 * NAME + NUMBER);
/// Bits of a process's number (`PID_MAX_LIMIT`, proc(5)).
const NUMBER: u32 = 22;
/// Bits of a run's, and of a family's.
const NAME: u32 = 18;

/// Most rounds of stopping in one call, as in [`tree`].
const ROUNDS: usize = 256;

/// Whose runs they are: those of one agent in its process namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family(u64);

/// Of which run somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run(u64);

/// What a process is marked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark(u64);

/// What there is of a family.
#[derive(Debug, Default)]
struct Found {
    /// Monitors, and services, of which somebody may become one.
    monitors: BTreeSet<Pid>,
    /// Who is of a run.
    members: BTreeSet<(Pid, Mark)>,
    /// Those of them whose monitors are gone.
    bereft: BTreeSet<(Pid, Mark)>,
}

/// What is to be waited for.
#[derive(Debug, Default)]
pub struct Outlook {
    /// Readable when one ends that may leave somebody.
    pub monitors: Vec<OwnedFd>,
    /// How many are left whose end is not seen yet.
    pub ended: usize,
    /// Whether to look again soon.
    pub dying: bool,
}

impl Family {
    /// That of this name in the process namespace of this process.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // Somebody in a namespace further in shows here with other numbers than there.
        let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino());
        Self(short(&[name, &namespace.to_ne_bytes()]))
    }

    /// As a word on a command line.
    #[must_use]
    pub fn word(self) -> String {
        self.0.to_string()
    }

    /// From such a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        word.parse().ok().filter(|number| *number < 1 << NAME).map(Self)
    }

    /// That of this process, by its mark.
    #[must_use]
    pub fn own() -> Option<Self> {
        let (soft, _) = getrlimit(Resource::RLIMIT_LOCKS).ok()?;
        Mark::at(soft).map(Mark::family)
    }

    /// Marks this process as one that makes monitors. Whoever it forks has that, too, until it says which it is.
    ///
    /// # Errors
    /// The hard limit is too low for marks.
    pub fn mark_service(self) -> io::Result<()> {
        self.mark(Run(0), 0).put_on()
    }

    /// Marks this process as the monitor of a run, or of none yet, and so all that it starts from now on.
    ///
    /// # Errors
    /// As [`Family::mark_service`].
    pub fn mark_monitor(self, run: Option<Run>) -> io::Result<()> {
        self.mark(run.unwrap_or(Run(0)), getpid().as_raw()).put_on()
    }

    /// The runs of which somebody is there, their monitors not counted.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn runs(self) -> io::Result<BTreeSet<Run>> {
        // Who is born of somebody that has just ended may be missed once.
        let twice = [self.look()?, self.look()?];
        Ok(twice.into_iter().flat_map(|found| found.members).map(|(_, mark)| mark.run()).collect())
    }

    /// Ends whoever is left of runs whose monitors are gone, and says what to wait for before this is done again. The monitors of
    /// a `service` that lives are its own to look after.
    ///
    /// # Errors
    /// `/proc` cannot be read; or the kernel is older than 5.3, and cannot say whom a signal is for.
    pub fn end_bereft(self, service: Option<Pid>) -> io::Result<Outlook> {
        let mut stopped = BTreeSet::new();
        let mut found = self.look()?;
        for _ in 0..ROUNDS {
            let new: Vec<_> = found.bereft.difference(&stopped).copied().collect();
            if new.is_empty() {
                break;
            }
            for member in new {
                send(member, Signal::SIGSTOP)?;
                stopped.insert(member);
            }
            found = self.look()?;
        }
        found.bereft.iter().try_for_each(|member| send(*member, Signal::SIGKILL))?;
        let is_elder = |pid: &Pid| service.is_none_or(|service| *pid != service && tree::parent(*pid) != Some(service));
        let elders: Vec<Pid> = found.monitors.into_iter().filter(is_elder).collect();
        let monitors = elders.iter().map(|pid| open(Opening::Process(pid.as_raw())));
        let monitors: Vec<OwnedFd> = monitors.filter_map(unless_gone).collect::<io::Result<_>>()?;
        // One that has ended before it was opened may have left somebody, and its number to another.
        let now = self.look()?;
        let dying = !found.bereft.is_empty() || !elders.iter().all(|elder| now.monitors.contains(elder));
        Ok(Outlook { monitors, ended: found.bereft.len(), dying })
    }

    const fn mark(self, Run(run): Run, monitor: i32) -> Mark {
        Mark(SIGN | self.0 << (NAME + NUMBER) | run << NUMBER | monitor.cast_unsigned() as u64)
    }

    /// Everyone with a mark of the family's that this process may end and take it off. Who has ended is nobody any more.
    fn look(self) -> io::Result<Found> {
        let (own, mut found) = (getpid(), Found::default());
        for pid in tree::everyone()? {
            let Some(mark) = Mark::of(pid).filter(|mark| pid != own && mark.family() == self) else { continue };
            if !is_ours(pid) || has_ended(pid) {
                continue;
            }
            if mark.monitor().is_none_or(|monitor| monitor == pid) {
                found.monitors.insert(pid);
            } else {
                found.members.insert((pid, mark));
            }
        }
        let marks: BTreeSet<Mark> = found.members.iter().map(|(_, mark)| *mark).collect();
        let (here, gone): (BTreeSet<Mark>, BTreeSet<Mark>) = marks.into_iter().partition(|mark| mark.has_monitor());
        found.monitors.extend(here.into_iter().filter_map(Mark::monitor));
        found.bereft = found.members.iter().filter(|(_, mark)| gone.contains(mark)).copied().collect();
        Ok(found)
    }
}

impl Run {
    /// That of this name.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        Self(short(&[name]))
    }
}

impl Mark {
    /// The mark of a process; none if it has none, or is gone.
    fn of(pid: Pid) -> Option<Self> {
        // Of those of other accounts there is nothing to be read.
        kill(pid, None).ok()?;
        let [soft, _] = limits(pid)?;
        Self::at(soft)
    }

    fn at(soft: u64) -> Option<Self> {
        (soft >> (2 * NAME + NUMBER) == SIGN >> (2 * NAME + NUMBER)).then_some(Self(soft))
    }

    fn monitor(self) -> Option<Pid> {
        let number = i32::try_from(self.0 & ((1 << NUMBER) - 1)).unwrap_or_default();
        (number > 0).then(|| Pid::from_raw(number))
    }

    const fn family(self) -> Family {
        Family(self.0 >> (NAME + NUMBER) & ((1 << NAME) - 1))
    }

    const fn run(self) -> Run {
        Run(self.0 >> NUMBER & ((1 << NAME) - 1))
    }

    /// Whether its monitor lives, for all that can be known: one into which nobody may look may be hidden in `/proc`
    /// (`hidepid`, proc(5)).
    fn has_monitor(self) -> bool {
        let Some(monitor) = self.monitor() else { return true };
        let lives = kill(monitor, None).is_ok() && !has_ended(monitor);
        lives && limits(monitor).is_none_or(|[soft, _]| soft == self.0)
    }

    fn put_on(self) -> io::Result<()> {
        let (_, hard) = getrlimit(Resource::RLIMIT_LOCKS)?;
        Ok(setrlimit(Resource::RLIMIT_LOCKS, self.0, hard)?)
    }
}

/// Takes a mark off this process, whoever's it is: what it starts from now on is of no run.
///
/// # Errors
/// Not expected of the kernel.
pub fn leave_family() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_LOCKS)?;
    if Mark::at(soft).is_some() { Ok(setrlimit(Resource::RLIMIT_LOCKS, hard, hard)?) } else { Ok(()) }
}

/// Takes this process's mark off everyone else who has it: they are left alone from now on, whatever becomes of this one.
///
/// # Errors
/// `/proc` cannot be read.
pub fn free_others() -> io::Result<()> {
    let own = getpid();
    let Some(mark) = Mark::at(getrlimit(Resource::RLIMIT_LOCKS)?.0) else { return Ok(()) };
    for _ in 0..ROUNDS {
        let others = tree::everyone()?.into_iter().filter(|pid| *pid != own && Mark::of(*pid) == Some(mark));
        let freed: Vec<io::Result<()>> = others.filter(|pid| is_ours(*pid) && !has_ended(*pid)).map(free).collect();
        // Who was born meanwhile has it from somebody who had it still.
        if freed.is_empty() {
            break;
        }
    }
    Ok(())
}

fn free(pid: Pid) -> io::Result<()> {
    let [_, hard] = limits(pid).ok_or(Errno::ESRCH)?;
    call(Numbers::FileLocks { process: pid.as_raw(), limits: [hard, hard] }).map(drop)
}

/// What was opened; nothing of a process that is gone.
fn unless_gone(opened: io::Result<OwnedFd>) -> Option<io::Result<OwnedFd>> {
    Some(opened).filter(|opened| opened.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::ESRCH))
}

/// Sends a signal to a process if it has that mark.
fn send((pid, mark): (Pid, Mark), signal: Signal) -> io::Result<()> {
    let Some(process) = unless_gone(open(Opening::Process(pid.as_raw()))).transpose()? else { return Ok(()) };
    // What is read now by the number is about the process that was opened, or the signal finds that gone.
    if Mark::of(pid) == Some(mark) && is_ours(pid) {
        drop(call(Numbers::SignalOpened { process: process.as_raw_fd(), signal: signal as i32 }));
    }
    Ok(())
}

/// The soft limit and the hard one.
fn limits(pid: Pid) -> Option<[u64; 2]> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max file locks"))?;
    let number = |word: &str| if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() };
    let mut words = line.split_ascii_whitespace().map(number);
    Some([words.next()??, words.next()??])
}

/// Whether a process has this one's account and group, and no others to take up: one that has become another's, or executes a
/// program that is another's, gives nobody here its limits to change.
fn is_ours(pid: Pid) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let all_are = |name: &str, own: u32| {
        let numbers = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let mut three = numbers.split_ascii_whitespace().take(3).peekable();
        three.peek().is_some() && three.all(|number| number.parse() == Ok(own))
    };
    all_are("Uid:", geteuid().as_raw()) && all_are("Gid:", getegid().as_raw())
}

/// Whether a process has ended with all of its threads, or is gone.
fn has_ended(pid: Pid) -> bool {
    let state = tree::state(pid);
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    match state {
        // Hidden, maybe.
        None => kill(pid, None).is_err(),
        Some('Z' | 'X') => threads() <= 1,
        Some(_) => false,
    }
}

/// A name in few bits (FNV-1a, folded): what a newer version of this program makes of it has to be the same.
fn short(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.iter().chain(&[0]));
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash ^ hash >> NAME ^ hash >> (2 * NAME) ^ hash >> (3 * NAME)) & ((1 << NAME) - 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use nix::sys::wait::waitpid;

    use super::*;
    use crate::sys::pipe;
    use crate::sys::process::tests::{chain_of_sessions, in_a_process};
    use crate::sys::process::{Fork, adopt_orphans, children, end, fork};

    /// Of one test alone.
    fn family(name: &str) -> Family {
        Family::of(format!("{name}{}", getpid()).as_bytes())
    }

    /// A monitor of that run with a chain of descendants, who all live until they are killed.
    fn monitor(family: Family, run: Run, length: usize) -> Pid {
        let (reader, writer) = pipe::pipe().unwrap();
        let Fork::Parent(monitor) = fork().unwrap() else {
            family.mark_monitor(Some(run)).unwrap();
            chain_of_sessions(length);
            std::fs::File::from(writer).write_all(b"x").unwrap();
            loop {
                nix::unistd::pause();
            }
        };
        pipe::read(&reader, &mut [0]).unwrap();
        monitor
    }

    fn end_it(pid: Pid) {
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
    }

    /// Buries everyone who has fallen to this process, and says how many are left.
    fn left(spared: &[Pid]) -> usize {
        let others = || children().unwrap().into_iter().filter(|pid| !spared.contains(pid));
        others().filter(|pid| has_ended(*pid)).for_each(|pid| assert!(waitpid(pid, None).is_ok()));
        others().count()
    }

    /// Looks until there is nothing more to be ended. How many monitors are waited for then.
    fn ended(family: Family) -> usize {
        loop {
            let outlook = family.end_bereft(None).unwrap();
            if !outlook.dying {
                return outlook.monitors.len();
            }
        }
    }

    #[test]
    fn a_mark_says_what_was_put_into_it() {
        let (family, run) = (Family::of(b"one"), Run::of(b"two"));
        let mark = family.mark(run, 4_194_303);
        assert_eq!((mark.family(), mark.run(), mark.monitor()), (family, run, Some(Pid::from_raw(4_194_303))));
        assert_eq!((family.mark(run, 0).monitor(), Mark::at(mark.0)), (None, Some(mark)));
        assert_eq!(Family::parse(&family.word()), Some(family));
        assert_ne!((family, run), (Family::of(b"another"), Run::of(b"another")));
        for word in ["", "x", "-1", "262144"] {
            assert_eq!(Family::parse(word), None, "{word}");
        }
        for none in [0, 1 << 61, 1 << 63, u64::MAX, u64::MAX >> 1] {
            assert_eq!(Mark::at(none), None, "{none}");
        }
    }

    #[test]
    fn who_is_left_of_a_dead_monitor_is_ended_and_who_has_one_lives() {
        let text = in_a_process("bereft", || {
            adopt_orphans().unwrap();
            let family = family("bereft");
            let [one, two] = [b"one", b"two"].map(|name| Run::of(name));
            let (lives, dies) = (monitor(family, one, 3), monitor(family, two, 3));
            let all = (ended(family), family.runs().unwrap() == BTreeSet::from([one, two]));
            end_it(dies);
            let lost = (left(&[lives]) > 0, family.runs().unwrap().contains(&two));
            let watched = ended(family);
            let runs = family.runs().unwrap() == BTreeSet::from([one]);
            let gone = left(&[lives]);
            end_it(lives);
            let rest = (ended(family), left(&[]), family.runs().unwrap().len());
            format!("{all:?} {lost:?} {watched} {runs} {gone} {rest:?}")
        });
        assert_eq!(text, "(2, true) (true, true) 1 true 0 (0, 0, 0)");
    }

    #[test]
    fn the_monitors_of_a_service_that_lives_are_not_waited_for() {
        let text = in_a_process("service", || {
            let family = family("service");
            let monitor = monitor(family, Run::of(b"run"), 1);
            let [of_it, of_all] =
                [Some(getpid()), None].map(|service| family.end_bereft(service).unwrap().monitors.len());
            end_it(monitor);
            ended(family);
            format!("{of_it} {of_all}")
        });
        assert_eq!(text, "0 1");
    }

    #[test]
    fn who_was_freed_is_nobodys_and_lives_on() {
        let text = in_a_process("freed", || {
            adopt_orphans().unwrap();
            let family = family("freed");
            let (reader, writer) = pipe::pipe().unwrap();
            let Fork::Parent(monitor) = fork().unwrap() else {
                family.mark_monitor(Some(Run::of(b"run"))).unwrap();
                chain_of_sessions(3);
                free_others().unwrap();
                std::fs::File::from(writer).write_all(b"x").unwrap();
                end(0)
            };
            pipe::read(&reader, &mut [0]).unwrap();
            waitpid(monitor, None).unwrap();
            let (watched, marked) = (ended(family), family.runs().unwrap().len());
            let lives = left(&[]);
            super::tree::freeze_and_kill().unwrap();
            format!("{watched} {marked} {lives}")
        });
        assert_eq!(text, "0 0 1");
    }

    #[test]
    fn a_number_that_is_another_process_s_by_now_gets_no_signal() {
        let text = in_a_process("reused", || {
            let family = family("reused");
            let Fork::Parent(stranger) = fork().unwrap() else {
                loop {
                    nix::unistd::pause();
                }
            };
            send((stranger, family.mark(Run::of(b"run"), 1)), Signal::SIGKILL).unwrap();
            let lives = kill(stranger, None).is_ok() && !has_ended(stranger);
            end_it(stranger);
            send((stranger, family.mark(Run::of(b"run"), 1)), Signal::SIGKILL).unwrap();
            lives.to_string()
        });
        assert_eq!(text, "true");
    }

    #[test]
    fn a_process_that_has_left_starts_nobody_of_the_family() {
        let text = in_a_process("left", || {
            let family = family("left");
            family.mark_service().unwrap();
            let before = Family::own() == Some(family);
            leave_family().unwrap();
            let (soft, hard) = getrlimit(Resource::RLIMIT_LOCKS).unwrap();
            format!("{before} {} {}", Family::own().is_none(), soft == hard)
        });
        assert_eq!(text, "true true true");
    }
}
