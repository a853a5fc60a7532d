//! The monitors of a service: those at work, those that wait for another order ([`Post`]), and those that are about to do so
//! or to end.
//!
//! A monitor is at work from before it is given an order until before it tells the outcome, which the [`Ledger`] has. What it
//! does afterwards takes its time, and on a busy host a long one; the front-end may give the next order for its place
//! meanwhile. So the monitors are counted in two ways: all that are out, which costs nothing; and, where those are as many as may
//! be, those that are at work. Whoever is out and not at work then gets no further order ([`Crew::retire_done`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::custody::Custody;
use super::orphans::Orphans;
use crate::executor::confine;
use crate::executor::event::Audit;
use crate::executor::ledger::{Ledger, Place};
use crate::executor::post::{LOCKS, Post, Word};
use crate::sys::fdpass::{self, Kind};
use crate::sys::process::{self, End, Pid, Rest};

/// Most monitors that wait at a time.
const MOST_IDLE: usize = 8;

/// A monitor, as its service knows it.
#[derive(Debug)]
pub(super) struct Member {
    /// While it may be given another order.
    line: Option<OwnedFd>,
    post: Posting,
}

/// A place in the ledger, and what it is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posting {
    number: usize,
    /// Whether the ledger was told that it is given an order.
    told: bool,
    /// It carries out none: it answers a word of control, or refuses.
    refuses: bool,
}

/// Everyone.
#[derive(Debug)]
pub(super) struct Crew {
    monitors: BTreeMap<Pid, Member>,
    /// Who is free; the last one first, whose memory is warm.
    idle: Vec<Pid>,
    /// How many are out for a service whose keeper has started another.
    elders: usize,
    /// Hears who is free.
    ear: OwnedFd,
    voice: OwnedFd,
    /// What each is busy with; and their places in it, those that are free again, and the first that was never used.
    ledger: Ledger,
    free: BTreeSet<usize>,
    fresh: usize,
    /// Whether its runs may have control groups.
    confines: bool,
    /// When to look for what a monitor has left that has ended: it may have been killed before it could clear that away. There
    /// may be others' too, who are not there to hear of their ends.
    bereft: Option<Instant>,
    /// The locks of its jobs.
    custody: Custody,
    /// What is left of scripts, if those are not confined.
    orphans: Option<Orphans>,
    /// More may have ended than were taken note of.
    behind: bool,
    /// Events that monitors have ended with and nobody has heard of.
    unheard: u64,
}

impl Crew {
    /// Nobody yet but the monitors of services before this one, which are still out and have their places in `ledger`. From now on
    /// whoever loses his monitor falls to this process.
    ///
    /// # Errors
    /// Out of descriptors, or the kernel is older than 3.4.
    pub(super) fn new(elders: usize, ledger: Ledger, confines: bool) -> io::Result<Self> {
        process::adopt_orphans()?;
        let (ear, voice) = fdpass::pair(Kind::Messages)?;
        Ok(Self {
            monitors: BTreeMap::new(),
            idle: Vec::new(),
            elders,
            ear,
            voice,
            // Without elders, whatever is noted is nobody's any more.
            fresh: if elders > 0 { ledger.used() } else { 0 },
            ledger,
            free: BTreeSet::new(),
            confines,
            bereft: confines.then(Instant::now),
            custody: Custody::default(),
            // The kernel ends who is confined.
            orphans: (!confines).then(Orphans::default),
            behind: false,
            unheard: 0,
        })
    }

    /// How many are out: at work, or not known to wait for another order.
    pub(super) fn out(&mut self) -> usize {
        if self.elders > 0 {
            // Their ends are told to the keeper alone. Nobody is added to them.
            self.elders = self.elders.min(process::siblings());
        }
        self.monitors.len().saturating_sub(self.idle.len()).saturating_add(self.elders)
    }

    /// How many of them are at work on an order that may be carried out. Elders count as such until they end: those of an
    /// executor whose file was replaced are not in this ledger.
    pub(super) fn at_work(&self) -> usize {
        let own = self.monitors.iter().filter(|(pid, member)| !member.post.refuses && self.is_busy(**pid, member));
        own.count().saturating_add(self.elders)
    }

    /// How many are busy with anything else.
    pub(super) fn refusing(&self) -> usize {
        self.monitors.iter().filter(|(pid, member)| member.post.refuses && self.is_busy(**pid, member)).count()
    }

    /// Whether a monitor is at work, for all that is known.
    fn is_busy(&self, pid: Pid, Member { post, .. }: &Member) -> bool {
        !self.idle.contains(&pid) && (!post.told || self.ledger.is_at_work(post.number))
    }

    /// Whoever is out and not at work gets no further order: not from here, and what comes on a connection that it keeps it
    /// declines. **Invariant:** such a monitor notes an order before it looks whether it may take it. So whoever is not at work
    /// after this will not be.
    pub(super) fn retire_done(&mut self) {
        let busy: BTreeSet<Pid> =
            self.monitors.iter().filter(|(pid, it)| self.is_busy(**pid, it)).map(|(pid, _)| *pid).collect();
        let done = self.monitors.iter_mut().filter(|(pid, _)| !busy.contains(pid) && !self.idle.contains(pid));
        done.for_each(|(_, member)| let_go(&mut member.line));
    }

    /// Readable when somebody is free.
    pub(super) fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Takes note of those who have ended, as many as leave time for other things, and of everyone who is free. Of a monitor that
    /// was killed, `audit` hears.
    pub(super) fn count(&mut self, audit: Audit<'_>) {
        let mut ended = Vec::new();
        let rest = process::reap_some(|pid, end| ended.push((pid, end)));
        self.behind = matches!(rest, Ok(Rest::More));
        // Locks that a monitor has handed over before its end.
        self.listen();
        let mut killed = false;
        for (pid, end) in &ended {
            match self.monitors.remove(pid) {
                Some(Member { post, .. }) => {
                    killed |= self.bury(*pid, *end, audit);
                    self.give_back(post);
                }
                // Somebody whose monitor has ended before.
                None => self.orphans.iter_mut().for_each(|orphans| orphans.bury(*pid)),
            }
            self.bereft = self.confines.then(Instant::now);
        }
        if !ended.is_empty() {
            self.settle(killed);
        }
    }

    /// Whether more may have ended than [`Crew::count`] took note of.
    pub(super) const fn is_behind(&self) -> bool {
        self.behind
    }

    /// A monitor has ended. Whether it was killed.
    fn bury(&mut self, monitor: Pid, end: End, audit: Audit<'_>) -> bool {
        self.custody.bereave(monitor);
        self.idle.retain(|idle| *idle != monitor);
        match end {
            End::Exited(events) => self.unheard = self.unheard.saturating_add(u64::from(events)),
            End::Signalled(signal) => self.ledger.bury(monitor, signal, audit),
        }
        matches!(end, End::Signalled(_))
    }

    /// Ends whom a monitor has left that was `killed`, and lets go of the locks of runs of which nobody is left.
    fn settle(&mut self, killed: bool) {
        if let Some(orphans) = &mut self.orphans {
            orphans.look(&self.monitors, killed);
        }
        let dying = self.orphans.as_ref().is_some_and(Orphans::are_dying);
        // **Invariant:** an init has fallen to this process before its monitor could be waited for. One that was waited for since
        // has left its number to others.
        let is_left = |init: Pid| !self.monitors.contains_key(&init) && process::is_child(init);
        self.custody.settle(|init| init.map_or(dying, is_left));
    }

    /// Clears away what monitors that have ended have left, and says when to do it again, if at all: the last processes of a
    /// run may be on their way out, or a monitor that is not this service's be at work, and killed one day.
    pub(super) fn clear(&mut self, now: Instant, pause: Duration) -> Option<Instant> {
        if self.bereft.is_some_and(|at| at <= now) {
            let cleared = confine::sweep(&|pid| self.monitors.contains_key(&pid));
            self.bereft = if cleared { None } else { now.checked_add(pause) };
        }
        self.bereft
    }

    /// How many events monitors have ended with that nobody has heard of, since the last call: a monitor's exit status.
    pub(super) const fn unheard(&mut self) -> u64 {
        std::mem::replace(&mut self.unheard, 0)
    }

    /// Takes note of everyone who is free. **Invariant:** done before a fork, so that no word of one that has ended is taken for
    /// one of a new monitor with the same number.
    pub(super) fn listen(&mut self) {
        let mut word = Word::EMPTY;
        loop {
            let message = match fdpass::receive_at_once(&self.ear, word.as_flattened_mut(), LOCKS) {
                Ok(message) if message.size == word.as_flattened().len() => message,
                // No descriptors are left here for what it brought.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Ok(_) | Err(_) => return,
            };
            let Word { monitor: pid, init } = Word::parse(word);
            let Some(Member { line, .. }) = self.monitors.get_mut(&pid) else { continue };
            if !message.descriptors.is_empty() {
                self.custody.hold(pid, init, message.descriptors);
                continue;
            }
            self.custody.release(pid);
            if self.idle.len() >= MOST_IDLE {
                // Without its line it ends.
                let_go(line);
            } else if line.is_some() {
                self.idle.push(pid);
            }
        }
    }

    /// Gives an order's connection to somebody who is free, if anybody is.
    pub(super) fn give(&mut self, connection: &OwnedFd) -> bool {
        while let Some(pid) = self.idle.pop() {
            let Some(Member { line, post }) = self.monitors.get_mut(&pid) else { continue };
            post.told = self.ledger.give(post.number);
            if line.as_ref().is_some_and(|line| fdpass::send(line, b"o", &[connection.as_fd()]).is_ok()) {
                return true;
            }
            // It has given up waiting and is about to end.
            let_go(line);
            self.ledger.take_back(post.number);
        }
        false
    }

    /// The two ends of a new monitor's line: the executor's, the monitor's own.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn line(&self) -> io::Result<(OwnedFd, Post)> {
        let (ours, theirs) = fdpass::pair(Kind::Messages)?;
        Ok((ours, Post::new(theirs, self.voice.try_clone()?)))
    }

    /// A place for somebody new, who is given something to do. Its monitor has none of it where there are no descriptors for
    /// that: the line about one that was killed is then missing, and it counts as one at work until it is free or ends.
    pub(super) fn post(&mut self, refuses: bool) -> (Posting, Option<Place>) {
        let number = self.free.pop_first().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        (Posting { number, told: self.ledger.give(number), refuses }, self.ledger.place(number).ok())
    }

    /// Nobody has it any more.
    pub(super) fn give_back(&mut self, post: Posting) {
        self.ledger.take_back(post.number);
        self.free.insert(post.number);
    }

    /// Somebody new.
    pub(super) fn add(&mut self, pid: Pid, line: Option<OwnedFd>, post: Posting) {
        self.monitors.insert(pid, Member { line, post });
    }

    /// Nobody gets another order: who is free ends now, who is at work afterwards.
    pub(super) fn retire(&mut self) {
        self.idle.clear();
        self.monitors.values_mut().for_each(|member| let_go(&mut member.line));
    }
}

/// Lets go of a monitor's line, so that it sees it from now on. Closing it alone would not do: a monitor that was just forked
/// may still have a copy of it.
fn let_go(line: &mut Option<OwnedFd>) {
    drop(line.take().map(fdpass::close_door));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::event::ExecEvent;
    use crate::sys::process::Fork;
    use crate::sys::process::tests::in_a_process;

    #[test]
    fn of_a_flood_of_ended_children_only_some_are_taken_note_of_at_once() {
        let text = in_a_process("flood", || {
            let mut crew = Crew::new(0, Ledger::new().unwrap(), true).unwrap();
            let children: Vec<Pid> = (0..200)
                .map(|_| match process::fork().unwrap() {
                    Fork::Child => process::end(7),
                    Fork::Parent(pid) => pid,
                })
                .collect();
            while !children.iter().all(|child| process::has_ended(*child)) {
                std::thread::yield_now();
            }
            let left = || children.iter().filter(|child| process::is_child(**child)).count();
            let mut seen = Vec::new();
            while seen.is_empty() || crew.is_behind() {
                crew.count(&|_: &ExecEvent<'_>| ());
                seen.push(left());
            }
            // No monitor has told how many events nobody has heard of.
            format!("{seen:?} {}", crew.unheard())
        });
        assert_eq!(text, "[136, 72, 8, 0] 0");
    }
}
