//! How many connections may be under way before they have proven anything: in all, and from one address.
//!
//! A slot is held from accept to the end of what is being bounded (a handshake, a pairing exchange) and is free
//! again when it is dropped, however the holder ended.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The counts and their ceilings.
#[derive(Debug)]
pub struct Slots {
    total: usize,
    per_address: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One place, free again when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    peer: IpAddr,
}

impl Slots {
    /// At most `total` at once, and at most `per_address` of them from one address.
    #[must_use]
    pub fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total, per_address, held: Mutex::new(Held::default()) })
    }

    /// Takes a slot for this address, if there is one.
    #[must_use]
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = held.by_address.get(&peer).copied().unwrap_or(0);
        if held.all >= self.total || mine >= self.per_address {
            return None;
        }
        held.all += 1;
        held.by_address.insert(peer, mine + 1);
        Some(Slot { slots: Arc::clone(self), peer })
    }

    /// How many are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all = held.all.saturating_sub(1);
        match held.by_address.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                held.by_address.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_slot() {
        let slots = Slots::new(3, 2);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = slots.take(one).unwrap();
        let second = slots.take(one).unwrap();
        assert!(slots.take(one).is_none());
        let third = slots.take(two).unwrap();
        assert!(slots.take(two).is_none());
        drop((first, third));
        assert!(slots.take(one).is_some());
        drop(second);
        assert_eq!(slots.held(), 0);
    }
}
