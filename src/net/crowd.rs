//! Places for those who keep this end waiting: a bounded number, in all and of one party, and none of them keeps a
//! newcomer out.
//!
//! Who says nothing costs nothing to replace: where every place is taken, the oldest gives way. An honest one is over in
//! milliseconds, so it is never the oldest unless hundreds come in that time; places that were held until a deadline
//! would need but as many silent ones.
//!
//! What a place holds of memory may be bounded in the same way, and by the same rule; one alone may hold any amount. And
//! who shows nothing for too long can be turned out before others need the place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The places and their ceilings. `K` is what tells one party from another.
#[derive(Debug)]
pub struct Crowd<K> {
    /// In all.
    all: Ceiling,
    /// Of one party.
    one: Ceiling,
    /// Who has shown something within that time does not give way for bytes.
    spares: Duration,
    places: Mutex<Places<K>>,
}

#[derive(Clone, Copy, Debug)]
struct Ceiling {
    places: usize,
    bytes: usize,
}

/// What is held by some.
#[derive(Debug, Default)]
struct Held {
    /// The numbers of their places, the oldest first.
    numbers: BTreeSet<u64>,
    bytes: usize,
}

#[derive(Debug)]
struct Places<K> {
    next: u64,
    taken: BTreeMap<u64, Taken<K>>,
    bytes: usize,
    by_party: HashMap<K, Held>,
}

#[derive(Debug)]
struct Taken<K> {
    party: K,
    bytes: usize,
    /// When it came, or has last shown that somebody is there.
    seen: Instant,
    gone: Arc<Notify>,
}

/// One place, free again when dropped.
#[derive(Debug)]
pub struct Place<K: Clone + Eq + Hash> {
    crowd: Arc<Crowd<K>>,
    number: AtomicU64,
    gone: Arc<Notify>,
}

impl<K: Clone + Eq + Hash> Crowd<K> {
    /// At most `total` at once, and at most `of_one` party; both at least one.
    #[must_use]
    pub fn new(total: usize, of_one: usize) -> Arc<Self> {
        Self::bounded((total, of_one), (usize::MAX, usize::MAX))
    }

    /// The same for `places`, and for the `bytes` that they hold.
    #[must_use]
    pub fn bounded(places: (usize, usize), bytes: (usize, usize)) -> Arc<Self> {
        Self::sparing(places, bytes, Duration::ZERO)
    }

    /// The same, where who came, or has shown something, within that time does not give way for bytes. So there may be
    /// more of them than there should, which ends with [`Crowd::turn_out`].
    #[must_use]
    pub fn sparing(places: (usize, usize), bytes: (usize, usize), spares: Duration) -> Arc<Self> {
        let ceiling = |places: usize, bytes| Ceiling { places: places.max(1), bytes };
        let none = Places { next: 0, taken: BTreeMap::new(), bytes: 0, by_party: HashMap::new() };
        Arc::new(Self {
            all: ceiling(places.0, bytes.0),
            one: ceiling(places.1, bytes.1),
            spares,
            places: Mutex::new(none),
        })
    }

    /// A place for a newcomer; another loses its own for it where there was none left. The ceiling of one party does not
    /// hold for one that is `known`: a dispatcher may open all its connections at once.
    #[must_use]
    pub fn enter(self: &Arc<Self>, party: K, known: bool) -> Place<K> {
        self.enter_heard(party, known, Arc::default())
    }

    /// The same, where another's signal is given when the place is lost.
    #[must_use]
    pub fn enter_heard(self: &Arc<Self>, party: K, known: bool, gone: Arc<Notify>) -> Place<K> {
        let mut places = self.lock();
        let most = if known { self.all.places } else { self.one.places };
        let number =
            self.admit(&mut places, most, Taken { party, bytes: 0, seen: Instant::now(), gone: Arc::clone(&gone) });
        Place { crowd: Arc::clone(self), number: AtomicU64::new(number), gone }
    }

    /// The same for one who holds so many bytes from the first.
    #[must_use]
    pub fn enter_heavy(self: &Arc<Self>, party: &K, bytes: usize, gone: Arc<Notify>) -> Place<K> {
        let taken = Taken { party: party.clone(), bytes, seen: Instant::now(), gone: Arc::clone(&gone) };
        let mut places = self.lock();
        let number = self.admit(&mut places, self.one.places, taken);
        self.lighten(&mut places, party, Instant::now());
        Place { crowd: Arc::clone(self), number: AtomicU64::new(number), gone }
    }

    /// Turns out all who have shown nothing for so long, and those who have been spared for long enough.
    pub fn turn_out(&self, patience: Duration, now: Instant) {
        let mut places = self.lock();
        let silent = |taken: &Taken<K>| now.saturating_duration_since(taken.seen) >= patience;
        while let Some(number) = places.oldest().filter(|oldest| places.taken.get(oldest).is_some_and(silent)) {
            places.take_away(number);
        }
        let heavy = |held: &(&K, &Held)| held.1.bytes > self.one.bytes;
        let parties: Vec<K> = places.by_party.iter().filter(heavy).map(|(party, _)| party.clone()).collect();
        for party in &parties {
            self.lighten(&mut places, party, now);
        }
        while let Some(number) = places.excess_of_all(self.all.bytes, self.silent_since(now)) {
            places.take_away(number);
        }
    }

    fn admit(&self, places: &mut Places<K>, most: usize, taken: Taken<K>) -> u64 {
        let oldest = places.by_party.get(&taken.party).filter(|same| same.numbers.len() >= most).and_then(Held::oldest);
        let first = || places.oldest().filter(|_| places.taken.len() >= self.all.places);
        if let Some(number) = oldest.or_else(first) {
            places.take_away(number);
        }
        places.put(taken)
    }

    /// Has the oldest give way until they hold no more than they may.
    fn lighten(&self, places: &mut Places<K>, party: &K, now: Instant) {
        let since = self.silent_since(now);
        while let Some(number) =
            places.excess_of_one(party, self.one.bytes, since).or_else(|| places.excess_of_all(self.all.bytes, since))
        {
            places.take_away(number);
        }
    }

    /// Who was not seen since then may have to give way. Before the first moment of this clock there was nobody.
    fn silent_since(&self, now: Instant) -> Option<Instant> {
        now.checked_sub(self.spares)
    }

    /// How many are taken now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().taken.len()
    }

    fn lock(&self) -> MutexGuard<'_, Places<K>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn oldest(&self) -> Option<u64> {
        self.numbers.first().copied()
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    fn oldest(&self) -> Option<u64> {
        self.taken.keys().next().copied()
    }

    /// Puts one behind all others.
    fn put(&mut self, taken: Taken<K>) -> u64 {
        let number = self.next;
        self.next += 1;
        let same = self.by_party.entry(taken.party.clone()).or_default();
        same.numbers.insert(number);
        same.bytes += taken.bytes;
        self.bytes += taken.bytes;
        self.taken.insert(number, taken);
        number
    }

    fn remove(&mut self, number: u64) -> Option<Taken<K>> {
        let taken = self.taken.remove(&number)?;
        self.bytes -= taken.bytes;
        if let Some(same) = self.by_party.get_mut(&taken.party) {
            same.numbers.remove(&number);
            same.bytes -= taken.bytes;
            if same.numbers.is_empty() {
                self.by_party.remove(&taken.party);
            }
        }
        Some(taken)
    }

    fn take_away(&mut self, number: u64) {
        if let Some(taken) = self.remove(number) {
            taken.gone.notify_one();
        }
    }

    /// Which of a party is to give way, if they hold too much.
    fn excess_of_one(&self, party: &K, most: usize, since: Option<Instant>) -> Option<u64> {
        let same = self.by_party.get(party).filter(|same| same.bytes > most && same.numbers.len() > 1)?;
        same.oldest().filter(|number| self.is_silent(*number, since))
    }

    /// Which of all is to give way, if they hold too much.
    fn excess_of_all(&self, most: usize, since: Option<Instant>) -> Option<u64> {
        let oldest = self.oldest().filter(|_| self.bytes > most && self.taken.len() > 1)?;
        Some(oldest).filter(|number| self.is_silent(*number, since))
    }

    fn is_silent(&self, number: u64, since: Option<Instant>) -> bool {
        self.taken.get(&number).zip(since).is_some_and(|(taken, since)| taken.seen <= since)
    }
}

impl<K: Clone + Eq + Hash> Place<K> {
    /// Waits until the place is given to another.
    pub async fn lost(&self) {
        self.gone.notified().await;
    }

    /// Whether the place was given to another.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        let places = self.crowd.lock();
        !places.taken.contains_key(&self.number())
    }

    /// Says how much memory the place's holder takes now. The oldest give way where that is too much, this one too if it
    /// is among them and not alone.
    pub fn weigh(&self, bytes: usize) {
        let mut places = self.crowd.lock();
        let Some(taken) = places.taken.get_mut(&self.number()) else { return };
        let (party, before) = (taken.party.clone(), std::mem::replace(&mut taken.bytes, bytes));
        places.bytes = places.bytes - before + bytes;
        if let Some(same) = places.by_party.get_mut(&party) {
            same.bytes = same.bytes - before + bytes;
        }
        self.crowd.lighten(&mut places, &party, Instant::now());
    }

    /// Makes it the youngest again: its holder has shown that somebody is there.
    pub fn renew(&self) {
        let mut places = self.crowd.lock();
        if let Some(mut taken) = places.remove(self.number()) {
            taken.seen = Instant::now();
            self.number.store(places.put(taken), Ordering::Relaxed);
        }
    }

    /// **Invariant:** read and changed under the crowd's lock alone.
    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }
}

impl<K: Clone + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut places = self.crowd.lock();
        places.remove(self.number());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::net::IpAddr;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_lost(place: &Place<IpAddr>) -> bool {
        pin!(place.lost()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_oldest_of_an_address_gives_way_to_its_own_newcomer() {
        let crowd = Crowd::new(10, 2);
        let other = crowd.enter(peer(2), false);
        let (first, second) = (crowd.enter(peer(1), false), crowd.enter(peer(1), false));
        let third = crowd.enter(peer(1), false);
        assert!(is_lost(&first));
        assert!(![&other, &second, &third].into_iter().any(is_lost));
    }

    #[test]
    fn the_oldest_of_all_gives_way_where_all_places_are_taken() {
        let crowd = Crowd::new(3, 2);
        let places: Vec<Place<IpAddr>> = (1..=3).map(|n| crowd.enter(peer(n), false)).collect();
        let newcomer = crowd.enter(peer(4), false);
        let lost: Vec<bool> = places.iter().map(is_lost).collect();
        assert_eq!((lost, is_lost(&newcomer)), (vec![true, false, false], false));
    }

    #[test]
    fn one_that_is_over_leaves_its_place_and_no_trace() {
        let crowd = Crowd::new(2, 2);
        let stays = crowd.enter(peer(1), false);
        for _ in 0..10 {
            let place = crowd.enter(peer(1), false);
            place.weigh(7);
            place.renew();
        }
        assert!(!is_lost(&stays));
        drop(stays);
        let places = crowd.lock();
        assert!(places.taken.is_empty() && places.by_party.is_empty() && places.bytes == 0);
    }

    #[test]
    fn the_ceiling_of_one_address_does_not_hold_for_a_known_one() {
        let crowd = Crowd::new(4, 2);
        let places: Vec<Place<IpAddr>> = (0..4).map(|_| crowd.enter(peer(1), true)).collect();
        assert!(!places.iter().any(is_lost), "all four stay");
    }

    #[test]
    fn who_holds_too_much_makes_its_own_oldest_give_way() {
        let crowd = Crowd::bounded((9, 9), (100, 60));
        let other = crowd.enter(peer(2), false);
        other.weigh(35);
        let mine = [1, 2, 3].map(|_| crowd.enter(peer(1), false));
        for place in &mine {
            place.weigh(20);
        }
        assert!(!mine.iter().chain([&other]).any(is_lost));
        mine[2].weigh(21);
        assert_eq!(mine.each_ref().map(is_lost), [true, false, false]);
        // What is given back counts no more.
        mine[1].weigh(0);
        mine[2].weigh(60);
        assert!(!mine[1..].iter().chain([&other]).any(is_lost));
        // More than all may hold together: the oldest of all, whoever it is.
        crowd.enter(peer(3), false).weigh(6);
        assert!(is_lost(&other) && !mine[1..].iter().any(is_lost));
    }

    #[test]
    fn one_that_shows_that_somebody_is_there_is_the_youngest_again() {
        let crowd = Crowd::new(9, 2);
        let [first, second] = [1, 2].map(|_| crowd.enter(peer(1), false));
        first.renew();
        let third = crowd.enter(peer(1), false);
        assert!(is_lost(&second) && ![&first, &third].into_iter().any(is_lost));
        // One that has lost its place gets it back by nothing.
        second.renew();
        second.weigh(1);
        assert_eq!(crowd.held(), 2);
    }

    #[test]
    fn one_alone_may_hold_any_amount_and_gives_way_to_the_next() {
        let crowd = Crowd::bounded((9, 9), (100, 60));
        let large = crowd.enter_heavy(&peer(1), 1000, Arc::default());
        assert!(!is_lost(&large));
        let next = crowd.enter_heavy(&peer(1), 1, Arc::default());
        assert!(is_lost(&large) && !is_lost(&next));
    }

    #[test]
    fn who_has_shown_something_lately_does_not_give_way_for_bytes_until_it_has_shown_nothing_for_long() {
        let spares = Duration::from_secs(10);
        let crowd = Crowd::sparing((9, 9), (100, 60), spares);
        let places = [1, 1, 1, 2].map(|n| crowd.enter_heavy(&peer(n), 40, Arc::default()));
        assert!(!places.iter().any(is_lost), "all have just come");
        let now = Instant::now();
        places[0].renew();
        let seen = now + spares;
        crowd.lock().taken.values_mut().next_back().unwrap().seen = seen;
        crowd.turn_out(Duration::MAX, now);
        assert!(!places.iter().any(is_lost));
        // Too much of one party; the one that was seen is spared.
        crowd.turn_out(Duration::MAX, seen);
        assert_eq!(places.each_ref().map(is_lost), [false, true, true, false]);
        // Too much of all.
        let last = crowd.enter_heavy(&peer(3), 40, Arc::default());
        assert_eq!(crowd.held(), 3);
        crowd.turn_out(Duration::MAX, seen);
        assert!(is_lost(&places[3]) && !is_lost(&places[0]) && !is_lost(&last));
        // For places it gives way all the same.
        let crowd = Crowd::sparing((1, 1), (100, 60), spares);
        let first = crowd.enter_heavy(&peer(1), 1, Arc::default());
        let _second = crowd.enter_heavy(&peer(1), 1, Arc::default());
        assert!(is_lost(&first));
    }

    #[test]
    fn who_shows_nothing_for_too_long_is_turned_out_and_nobody_else() {
        let crowd = Crowd::new(9, 9);
        let [silent, heard] = [1, 2].map(|n| crowd.enter(peer(n), false));
        let now = Instant::now();
        let patience = Duration::from_secs(10);
        crowd.turn_out(patience, now + Duration::from_secs(9));
        assert!(!is_lost(&silent) && !is_lost(&heard));
        heard.renew();
        let seen = Instant::now();
        crowd.lock().taken.values_mut().next_back().unwrap().seen = seen + Duration::from_secs(5);
        crowd.turn_out(patience, seen + Duration::from_secs(12));
        assert!(is_lost(&silent) && !is_lost(&heard));
        assert_eq!(crowd.held(), 1);
    }
}
