//! The monitors of a service: those at work, and those that wait for another order ([`Post`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::orphans::Orphans;
use crate::executor::confine;
use crate::executor::event::Audit;
use crate::executor::ledger::{Ledger, Place};
use crate::executor::post::{Post, Word};
use crate::sys::fdpass::{self, Kind};
use crate::sys::process::{self, End, Pid, Reaped};

/// Most monitors that wait at a time.
const MOST_IDLE: usize = 8;

/// Everyone.
#[derive(Debug)]
pub(super) struct Crew {
    /// Each with its line, while it may be given another order.
    monitors: BTreeMap<Pid, Option<OwnedFd>>,
    /// Who is free; the last one first, whose memory is warm.
    idle: Vec<Pid>,
    /// Who keeps a connection: at work on it, or waiting for its next order.
    keepers: BTreeSet<Pid>,
    /// How many are at work for a service whose keeper has started another.
    elders: usize,
    /// Hears who is free.
    ear: OwnedFd,
    voice: OwnedFd,
    /// What each is busy with; and their places in it, those that are free again, and the first that was never used.
    ledger: Ledger,
    places: BTreeMap<Pid, usize>,
    free: BTreeSet<usize>,
    fresh: usize,
    /// A monitor was killed, and what it would have cleared away may still be there.
    bereft: bool,
    /// What is left of scripts that are not confined falls to this process.
    orphans: Option<Orphans>,
    /// Events that monitors have ended with and nobody has heard of.
    unheard: u64,
}

impl Crew {
    /// Nobody yet but the monitors of services before this one, which are still at work and have their places in
    /// `ledger`.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn new(elders: usize, ledger: Ledger) -> io::Result<Self> {
        let (ear, voice) = fdpass::pair(Kind::Messages)?;
        Ok(Self {
            monitors: BTreeMap::new(),
            idle: Vec::new(),
            keepers: BTreeSet::new(),
            elders,
            ear,
            voice,
            // Without elders, whatever is noted is nobody's any more.
            fresh: if elders > 0 { ledger.used() } else { 0 },
            ledger,
            places: BTreeMap::new(),
            free: BTreeSet::new(),
            bereft: false,
            orphans: None,
            unheard: 0,
        })
    }

    /// From now on whoever loses his monitor falls to this process, and is ended if that was killed. Only for monitors of
    /// scripts that are not confined.
    ///
    /// # Errors
    /// The kernel is older than 3.4.
    pub(super) fn adopt(&mut self) -> io::Result<()> {
        process::adopt_orphans()?;
        self.orphans = Some(Orphans::default());
        Ok(())
    }

    /// How many are at work.
    pub(super) fn busy(&mut self) -> usize {
        if self.elders > 0 {
            // Their ends are told to the keeper alone. Nobody is added to them.
            self.elders = self.elders.min(process::siblings());
        }
        self.monitors.len().saturating_sub(self.idle.len()).saturating_add(self.elders)
    }

    /// Readable when somebody is free.
    pub(super) fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Takes note of everyone who has ended or is free. Of one that was killed, `audit` hears.
    pub(super) fn count(&mut self, audit: Audit<'_>) {
        // A lock that a monitor has handed over before its end.
        self.listen();
        let (mut anybody, mut killed) = (false, false);
        while let Ok(Reaped::Child(pid, end)) = process::reap() {
            anybody = true;
            if let Some(orphans) = &mut self.orphans {
                match end {
                    _ if !self.monitors.contains_key(&pid) => {
                        orphans.bury(pid);
                        continue;
                    }
                    End::Exited(_) => orphans.release(pid),
                    End::Signalled(_) => orphans.bereave(pid),
                }
            }
            match end {
                End::Exited(events) => self.unheard = self.unheard.saturating_add(u64::from(events)),
                End::Signalled(signal) => {
                    (self.bereft, killed) = (true, true);
                    self.ledger.bury(pid, signal, audit);
                }
            }
            self.monitors.remove(&pid);
            self.free.extend(self.places.remove(&pid));
            self.idle.retain(|idle| *idle != pid);
            self.keepers.remove(&pid);
        }
        if let Some(orphans) = self.orphans.as_mut().filter(|_| anybody) {
            orphans.look(&self.monitors, killed);
        }
        if self.bereft {
            // Its run's last processes may be on their way out: then at the next signal.
            self.bereft = !confine::sweep();
        }
        self.listen();
    }

    /// How many events monitors have ended with that nobody has heard of, since the last call: a monitor's exit status.
    pub(super) const fn unheard(&mut self) -> u64 {
        std::mem::replace(&mut self.unheard, 0)
    }

    /// Takes note of everyone who is free, or keeps a connection. **Invariant:** done before a fork, so that no word of one
    /// that has ended is taken for one of a new monitor with the same number.
    pub(super) fn listen(&mut self) {
        let mut word = [0; Word::SIZE];
        while let Ok(mut message) = fdpass::receive_at_once(&self.ear, &mut word, 1)
            && message.size == word.len()
        {
            match (Word::parse(word), message.descriptors.pop()) {
                (Word::Free(pid) | Word::Keeps(pid), Some(lock)) => {
                    if let Some(orphans) = self.orphans.as_mut().filter(|_| self.monitors.contains_key(&pid)) {
                        orphans.hold(pid, lock);
                    }
                }
                (Word::Free(pid), None) => {
                    self.keepers.remove(&pid);
                    self.orphans.iter_mut().for_each(|orphans| orphans.release(pid));
                    match self.monitors.get_mut(&pid) {
                        // Without its line it ends.
                        Some(line) if self.idle.len() >= MOST_IDLE => let_go(line),
                        Some(Some(_)) => self.idle.push(pid),
                        _ => {}
                    }
                }
                (Word::Keeps(pid), None) if self.monitors.contains_key(&pid) => drop(self.keepers.insert(pid)),
                (Word::Keeps(_), None) => {}
            }
        }
    }

    /// Gives an order's connection to somebody who is free, if anybody is.
    pub(super) fn give(&mut self, connection: &OwnedFd) -> bool {
        while let Some(pid) = self.idle.pop() {
            let line = self.monitors.get(&pid).and_then(Option::as_ref);
            if line.is_some_and(|line| fdpass::send(line, b"o", &[connection.as_fd()]).is_ok()) {
                return true;
            }
            // It has given up waiting and is about to end.
            self.monitors.entry(pid).and_modify(let_go);
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

    /// A place for somebody new, and its number. None where there are no descriptors for it: the line about a killed
    /// monitor is then missing.
    pub(super) fn place(&mut self) -> (usize, Option<Place>) {
        let number = self.free.pop_first().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        });
        (number, self.ledger.place(number).ok())
    }

    /// Nobody new came of it.
    pub(super) fn give_back(&mut self, place: usize) {
        self.free.insert(place);
    }

    /// Somebody new.
    pub(super) fn add(&mut self, pid: Pid, line: Option<OwnedFd>, place: usize) {
        self.monitors.insert(pid, line);
        self.places.insert(pid, place);
    }

    /// Nobody gets another order: who is free ends now, who is at work afterwards.
    pub(super) fn retire(&mut self) {
        self.idle.clear();
        self.keepers.clear();
        self.monitors.values_mut().for_each(let_go);
    }

    /// The same of those who keep a connection, since their places are wanted. Whether there are any.
    pub(super) fn retire_keepers(&mut self) -> bool {
        let keepers = std::mem::take(&mut self.keepers);
        for pid in &keepers {
            self.monitors.entry(*pid).and_modify(let_go);
        }
        !keepers.is_empty()
    }
}

/// Lets go of a monitor's line, so that it sees it from now on. Closing it alone would not do: a monitor that was just forked
/// may still have a copy of it.
fn let_go(line: &mut Option<OwnedFd>) {
    drop(line.take().map(fdpass::close_door));
}
