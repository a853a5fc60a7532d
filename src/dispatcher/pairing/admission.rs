//! Whom the listener lets try, and how often.
//!
//! Two budgets beside the places of [`crate::net::handshakes`]: connections in a window of time, as configured, and attempts
//! at the strong form that came to nothing. The second is what bounds a relay: it learns what code the dispatcher will
//! show before it opens its commitment, so it could otherwise try until that code is the one an agent shows. With the
//! limits here it has [`UNOPENED`] guesses for each address and [`FRUITLESS`] in a session, each one in ten million.
//!
//! An IPv6 network of 64 bits counts as one address: whoever has one of its addresses has all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::conf::RateLimit;
use crate::net::rate::{Budget, Judgement, Limiter, Verdict};

/// Commitments of one address that may be unopened in one session.
pub const UNOPENED: u32 = 3;
/// Attempts that came to nothing in one session, from all addresses together. Then the strong form is over for the
/// session: whoever can use up so many addresses may close the door, but not guess at it.
pub const FRUITLESS: u32 = 100;

/// The budgets of one session.
#[derive(Debug)]
pub struct Admission {
    limiter: Option<Limiter>,
    unopened: HashMap<IpAddr, u32>,
    fruitless: u32,
}

impl Admission {
    /// Fresh budgets; without a limit connections are not counted.
    #[must_use]
    pub fn new(limit: Option<RateLimit>) -> Self {
        let off = Budget { limit: 0, window: 1, block: 1 };
        let budget = |limit: RateLimit| Budget {
            limit: limit.limit.get(),
            window: limit.window.as_secs(),
            block: limit.block.as_secs(),
        };
        let limiter = limit.map(|limit| Limiter::new(budget(limit), off));
        Self { limiter, unopened: HashMap::new(), fruitless: 0 }
    }

    /// Judges a new connection at `now`, in seconds of any steady clock.
    pub fn connection(&mut self, peer: IpAddr, now: u64) -> Judgement {
        match &mut self.limiter {
            Some(limiter) => limiter.connection(counted_as(peer), now),
            None => Judgement { verdict: Verdict::Allow, evicted: false },
        }
    }

    /// Counts a commitment that is not open yet; says whether it may go on.
    pub fn committed(&mut self, peer: IpAddr) -> bool {
        let mine = self.unopened.get(&counted_as(peer)).copied().unwrap_or(0);
        if mine >= UNOPENED || self.fruitless >= FRUITLESS {
            return false;
        }
        self.unopened.insert(counted_as(peer), mine + 1);
        self.fruitless += 1;
        true
    }

    /// The commitment was opened: it no longer counts against its address, but as fruitless until it is answered.
    pub fn opened(&mut self, peer: IpAddr) {
        match self.unopened.get_mut(&counted_as(peer)) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.unopened.remove(&counted_as(peer))),
        }
    }

    /// The operator of this end answered the request, or never saw a code of it.
    pub fn answered(&mut self) {
        self.fruitless = self.fruitless.saturating_sub(1);
    }
}

/// The address under which a peer's attempts are counted.
pub(super) fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_fourth_unopened_commitment_of_an_address_is_refused_and_an_opened_one_does_not_count() {
        let mut admission = Admission::new(None);
        for _ in 0..10 {
            assert!(admission.committed(ip("192.0.2.1")));
            admission.opened(ip("192.0.2.1"));
        }
        for _ in 0..UNOPENED {
            assert!(admission.committed(ip("192.0.2.1")));
        }
        assert!(!admission.committed(ip("192.0.2.1")));
        assert!(admission.committed(ip("192.0.2.2")));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_their_budget() {
        let mut admission = Admission::new(None);
        for host in 1..=UNOPENED {
            assert!(admission.committed(ip(&format!("2001:db8::{host}"))));
        }
        assert!(!admission.committed(ip("2001:db8::ffff")));
        assert!(admission.committed(ip("2001:db8:0:1::1")));
    }

    #[test]
    fn many_addresses_do_not_make_many_guesses() {
        let mut admission = Admission::new(None);
        let tried = (0..=255_u8).filter(|last| admission.committed(IpAddr::from([10, 0, 0, *last]))).count();
        assert_eq!(tried, usize::try_from(FRUITLESS).unwrap());
        admission.answered();
        assert!(admission.committed(ip("10.0.1.1")));
    }
}
