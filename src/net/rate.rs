//! The rate limiter of the agent and of the pairing listener: per address, in memory, whole seconds.
//!
//! Two counters: connections (`volume`) and failed handshakes (`probe`), each `limit/window/block`. The limit-th
//! connection within the window passes and the next is blocked. Where connections can prove to be a trusted
//! dispatcher's, only those that did not are counted, and only when that is known: a busy dispatcher never blocks
//! itself, however many connections it opens at once. The table has a fixed capacity; a full table first
//! drops what is no longer needed, then the entry that was blocked the least, so that a flood of addresses grows no
//! memory.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Most addresses remembered at once, as documented.
pub const CAPACITY: usize = 1000;
/// Places that are free after each pass over a full table.
const ROOM: usize = CAPACITY / 10;

/// One counter's setting. A `limit` of 0 turns the check off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Events allowed within the window.
    pub limit: u32,
    /// Window, seconds.
    pub window: u64,
    /// How long an address that went over stays blocked, seconds.
    pub block: u64,
}

/// Which counter went over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many connections.
    Volume,
    /// Too many failed handshakes.
    Probe,
}

impl Reason {
    /// The word in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Probe => "probe",
        }
    }
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Serve it.
    Allow,
    /// Close it; its address was blocked before.
    Blocked,
    /// Close it and log: the block begins now.
    BlockedNow(Reason),
}

/// A verdict, and whether the table had to be cleared for it (to be logged).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What to do.
    pub verdict: Verdict,
    /// Entries were dropped because the table was full.
    pub evicted: bool,
}

#[derive(Debug, Default)]
struct Entry {
    connections: VecDeque<u64>,
    failures: VecDeque<u64>,
    blocked_until: u64,
}

impl Entry {
    /// Forgets what no window reaches any more.
    fn prune(&mut self, now: u64, volume: Budget, probe: Budget) {
        let old = |times: &mut VecDeque<u64>, window: u64| {
            while times.front().is_some_and(|time| time.saturating_add(window) <= now) {
                times.pop_front();
            }
        };
        old(&mut self.connections, volume.window);
        old(&mut self.failures, probe.window);
    }

    fn idle(&self, now: u64) -> bool {
        self.blocked_until <= now && self.connections.is_empty() && self.failures.is_empty()
    }
}

/// The limiter. Time is an argument: seconds of any steady clock.
#[derive(Debug)]
pub struct Limiter {
    volume: Budget,
    probe: Budget,
    table: HashMap<IpAddr, Entry>,
}

impl Limiter {
    /// A limiter with an empty table.
    #[must_use]
    pub fn new(volume: Budget, probe: Budget) -> Self {
        Self { volume, probe, table: HashMap::new() }
    }

    /// Judges a new connection and counts it where it is allowed: for listeners where nobody can prove anything.
    pub fn connection(&mut self, peer: IpAddr, now: u64) -> Judgement {
        let mut judgement = self.judge(peer, now);
        if judgement.verdict == Verdict::Allow {
            judgement.evicted |= self.unproven(peer, now);
        }
        judgement
    }

    /// Judges a new connection and does not count it: [`Limiter::unproven`] does, if it turns out to be a stranger's.
    pub fn judge(&mut self, peer: IpAddr, now: u64) -> Judgement {
        let (volume, probe) = (self.volume, self.probe);
        let (entry, evicted) = self.entry(peer, now);
        Judgement { verdict: judge(entry, now, volume, probe), evicted }
    }

    /// Counts a connection that has not proven to be a trusted dispatcher's; says whether entries were dropped for it
    /// because the table was full (to be logged).
    pub fn unproven(&mut self, peer: IpAddr, now: u64) -> bool {
        let most = usize_of(self.volume.limit);
        let (entry, evicted) = self.entry(peer, now);
        if entry.connections.len() < most {
            entry.connections.push_back(now);
        }
        evicted
    }

    /// Counts a failed handshake; says whether it began a block.
    pub fn failure(&mut self, peer: IpAddr, now: u64) -> Judgement {
        let probe = self.probe;
        let (entry, evicted) = self.entry(peer, now);
        if entry.blocked_until > now {
            return Judgement { verdict: Verdict::Blocked, evicted };
        }
        if probe.limit > 0 {
            entry.failures.push_back(now);
        }
        let reached = probe.limit > 0 && entry.failures.len() >= usize_of(probe.limit);
        let verdict = if reached { block(entry, now, probe, Reason::Probe) } else { Verdict::Allow };
        Judgement { verdict, evicted }
    }

    /// Addresses that are blocked.
    #[must_use]
    pub fn blocked(&self, now: u64) -> usize {
        self.table.values().filter(|entry| entry.blocked_until > now).count()
    }

    /// Forgets everything, as on reload.
    pub fn clear(&mut self) {
        self.table.clear();
    }

    fn entry(&mut self, peer: IpAddr, now: u64) -> (&mut Entry, bool) {
        let evicted = !self.table.contains_key(&peer) && self.table.len() >= CAPACITY && self.make_room(now);
        let (volume, probe) = (self.volume, self.probe);
        let entry = self.table.entry(peer).or_default();
        if entry.blocked_until != 0 && entry.blocked_until <= now {
            *entry = Entry::default();
        }
        entry.prune(now, volume, probe);
        (entry, evicted)
    }

    /// Drops every idle entry, and then as many others, least blocked first, as a tenth of the table lacks: the pass over
    /// the table is paid for by the next hundred newcomers and not by each of them, also where entries become idle one
    /// at a time.
    fn make_room(&mut self, now: u64) -> bool {
        let (volume, probe) = (self.volume, self.probe);
        self.table.retain(|_, entry| {
            entry.prune(now, volume, probe);
            !entry.idle(now)
        });
        let lacking = self.table.len().saturating_sub(CAPACITY - ROOM);
        if lacking > 0 {
            let mut order: Vec<(u64, IpAddr)> = self.table.iter().map(|(ip, e)| (e.blocked_until, *ip)).collect();
            order.sort_unstable();
            for (_, peer) in order.iter().take(lacking) {
                self.table.remove(peer);
            }
        }
        true
    }
}

fn judge(entry: &mut Entry, now: u64, volume: Budget, probe: Budget) -> Verdict {
    if entry.blocked_until > now {
        Verdict::Blocked
    } else if volume.limit > 0 && entry.connections.len() >= usize_of(volume.limit) {
        block(entry, now, volume, Reason::Volume)
    } else if probe.limit > 0 && entry.failures.len() >= usize_of(probe.limit) {
        block(entry, now, probe, Reason::Probe)
    } else {
        Verdict::Allow
    }
}

fn block(entry: &mut Entry, now: u64, budget: Budget, reason: Reason) -> Verdict {
    entry.blocked_until = now.saturating_add(budget.block.max(1));
    entry.connections.clear();
    entry.failures.clear();
    Verdict::BlockedNow(reason)
}

fn usize_of(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: Budget = Budget { limit: 10, window: 60, block: 300 };
    const PROBE: Budget = Budget { limit: 3, window: 600, block: 3600 };

    fn peer(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn ten_connections_pass_and_the_eleventh_is_blocked_for_five_minutes() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        for _ in 0..10 {
            assert_eq!(limiter.connection(peer(1), 5).verdict, Verdict::Allow);
        }
        assert_eq!(limiter.connection(peer(1), 5).verdict, Verdict::BlockedNow(Reason::Volume));
        assert_eq!(limiter.connection(peer(1), 304).verdict, Verdict::Blocked);
        assert_eq!(limiter.connection(peer(2), 5).verdict, Verdict::Allow);
        assert_eq!((limiter.blocked(304), limiter.blocked(305)), (1, 0));
        assert_eq!(limiter.connection(peer(1), 305).verdict, Verdict::Allow);
    }

    #[test]
    fn what_proves_itself_is_never_counted() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        for _ in 0..10_000 {
            assert_eq!(limiter.judge(peer(1), 5).verdict, Verdict::Allow);
        }
        for _ in 0..20 {
            limiter.unproven(peer(1), 5);
        }
        assert_eq!(limiter.judge(peer(1), 5).verdict, Verdict::BlockedNow(Reason::Volume));
        assert_eq!(limiter.judge(peer(1), 305).verdict, Verdict::Allow);
    }

    #[test]
    fn three_failed_handshakes_block_for_an_hour() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        assert_eq!(limiter.failure(peer(1), 0).verdict, Verdict::Allow);
        assert_eq!(limiter.failure(peer(1), 1).verdict, Verdict::Allow);
        assert_eq!(limiter.failure(peer(1), 2).verdict, Verdict::BlockedNow(Reason::Probe));
        assert_eq!(limiter.connection(peer(1), 3601).verdict, Verdict::Blocked);
        assert_eq!(limiter.connection(peer(1), 3602).verdict, Verdict::Allow);
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        for time in [0, 700, 1400, 2100] {
            assert_eq!(limiter.failure(peer(1), time).verdict, Verdict::Allow);
        }
    }

    #[test]
    fn a_flood_of_addresses_does_not_grow_the_table() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        let mut evictions = 0;
        for n in 0..10_000 {
            evictions += u32::from(limiter.connection(peer(n), 5).evicted);
            assert!(limiter.table.len() <= CAPACITY);
        }
        assert!(evictions > 0 && evictions < 200, "{evictions}");
    }

    #[test]
    fn a_stranger_who_was_forgotten_while_he_was_connected_says_so_when_he_makes_room_for_himself() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        limiter.judge(peer(0), 5);
        for n in 1..=1000 {
            limiter.connection(peer(n), 5);
        }
        assert!(!limiter.table.contains_key(&peer(0)) && limiter.table.len() == 901);
        assert!(!limiter.unproven(peer(2000), 5), "there is room");
        for n in 1001..=1098 {
            limiter.connection(peer(n), 5);
        }
        assert_eq!(limiter.table.len(), CAPACITY);
        assert!(limiter.unproven(peer(0), 5));
    }

    #[test]
    fn entries_that_become_idle_one_at_a_time_cost_no_pass_each() {
        let slow = Budget { window: 1000, ..VOLUME };
        let mut limiter = Limiter::new(slow, PROBE);
        let mut passes = 0;
        for n in 0..10_000 {
            // At each moment from the thousandth on, one entry is old enough to go.
            passes += usize::from(limiter.connection(peer(n), u64::from(n)).evicted);
            assert!(limiter.table.len() <= CAPACITY);
        }
        assert!(passes > 0 && passes <= 10_000 / ROOM, "{passes}");
    }

    #[test]
    fn a_flood_of_addresses_does_not_free_a_blocked_one() {
        let mut limiter = Limiter::new(VOLUME, PROBE);
        for time in 0..3 {
            limiter.failure(peer(1), time);
        }
        for n in 2..5_000 {
            limiter.connection(peer(n), 5);
        }
        assert_eq!(limiter.connection(peer(1), 6).verdict, Verdict::Blocked);
    }

    #[test]
    fn a_limit_of_zero_is_off() {
        let off = Budget { limit: 0, window: 60, block: 300 };
        let mut limiter = Limiter::new(off, off);
        for _ in 0..100 {
            assert_eq!(limiter.connection(peer(1), 5).verdict, Verdict::Allow);
            assert_eq!(limiter.failure(peer(1), 5).verdict, Verdict::Allow);
        }
    }
}
