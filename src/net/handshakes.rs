//! Handshakes under way: a bounded number, in all and from one address, and none of them keeps a newcomer out.
//!
//! Who says nothing costs nothing to replace: where every place is taken, the oldest handshake gives way. An honest
//! one is over in milliseconds, so it is never the oldest unless strangers open hundreds of connections in that time;
//! places that were held until a deadline would need but a few dozen silent ones.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The handshakes under way and their ceilings.
#[derive(Debug)]
pub struct Handshakes {
    total: usize,
    per_address: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    all: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    by_address: HashMap<IpAddr, VecDeque<u64>>,
}

/// One handshake's place, free again when dropped.
#[derive(Debug)]
pub struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
    gone: oneshot::Receiver<()>,
}

impl Handshakes {
    /// At most `total` at once, and at most `per_address` of them from one address; both at least one.
    #[must_use]
    pub fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total: total.max(1), per_address: per_address.max(1), places: Mutex::default() })
    }

    /// A place for a newcomer; another handshake loses its own for it where there was none left. The ceiling of one
    /// address does not hold for one that is `known`: a dispatcher may open all its connections at once.
    #[must_use]
    pub fn enter(self: &Arc<Self>, peer: IpAddr, known: bool) -> Place {
        let mut places = self.lock();
        let most = if known { self.total } else { self.per_address };
        let same = places.by_address.get(&peer).filter(|same| same.len() >= most);
        let oldest = same.and_then(|same| same.front().copied());
        let first = || places.all.keys().next().copied().filter(|_| places.all.len() >= self.total);
        if let Some(number) = oldest.or_else(first) {
            places.remove(number);
        }
        let number = places.next;
        places.next += 1;
        let (signal, gone) = oneshot::channel();
        places.all.insert(number, (peer, signal));
        places.by_address.entry(peer).or_default().push_back(number);
        Place { handshakes: Arc::clone(self), number, gone }
    }

    /// How many are under way now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().all.len()
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Dropping the sender is the signal.
    fn remove(&mut self, number: u64) {
        let Some((peer, _)) = self.all.remove(&number) else { return };
        let Some(same) = self.by_address.get_mut(&peer) else { return };
        same.retain(|other| *other != number);
        if same.is_empty() {
            self.by_address.remove(&peer);
        }
    }
}

impl Place {
    /// Waits until the place is given to another.
    pub async fn lost(&mut self) {
        // Nothing is ever sent: the other end goes, or this one does.
        let _ = (&mut self.gone).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.handshakes.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_lost(place: &mut Place) -> bool {
        pin!(place.lost()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    fn peer(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    #[test]
    fn the_oldest_of_an_address_gives_way_to_its_own_newcomer() {
        let handshakes = Handshakes::new(10, 2);
        let mut other = handshakes.enter(peer(2), false);
        let (mut first, mut second) = (handshakes.enter(peer(1), false), handshakes.enter(peer(1), false));
        let mut third = handshakes.enter(peer(1), false);
        assert!(is_lost(&mut first));
        assert!(![&mut other, &mut second, &mut third].into_iter().any(is_lost));
    }

    #[test]
    fn the_oldest_of_all_gives_way_where_all_places_are_taken() {
        let handshakes = Handshakes::new(3, 2);
        let mut places: Vec<Place> = (1..=3).map(|n| handshakes.enter(peer(n), false)).collect();
        let mut newcomer = handshakes.enter(peer(4), false);
        let lost: Vec<bool> = places.iter_mut().map(is_lost).collect();
        assert_eq!((lost, is_lost(&mut newcomer)), (vec![true, false, false], false));
    }

    #[test]
    fn a_finished_handshake_leaves_its_place_and_no_trace() {
        let handshakes = Handshakes::new(2, 2);
        let mut stays = handshakes.enter(peer(1), false);
        for _ in 0..10 {
            drop(handshakes.enter(peer(1), false));
        }
        assert!(!is_lost(&mut stays));
        drop(stays);
        let places = handshakes.lock();
        assert!(places.all.is_empty() && places.by_address.is_empty());
    }

    #[tokio::test]
    async fn the_ceiling_of_one_address_does_not_hold_for_a_known_one() {
        let handshakes = Handshakes::new(4, 2);
        let mut places: Vec<Place> = (0..4).map(|_| handshakes.enter(peer(1), true)).collect();
        for place in &mut places {
            let lost = tokio::time::timeout(std::time::Duration::ZERO, place.lost()).await;
            assert!(lost.is_err(), "all four stay");
        }
    }
}
