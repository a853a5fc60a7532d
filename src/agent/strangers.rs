//! Lines about addresses that may not connect: one for each address and minute, or anybody could fill the log.

use std::collections::HashMap;
use std::net::IpAddr;

/// Addresses that are remembered.
const MOST: usize = 1024;
/// Seconds between two lines about one address.
const REST: u64 = 60;

/// Who was told of, and how often they came since.
#[derive(Debug, Default)]
pub struct Strangers(HashMap<IpAddr, Visits>);

#[derive(Debug)]
struct Visits {
    /// Until when nothing is said, in seconds of the caller's clock.
    until: u64,
    untold: u64,
}

impl Strangers {
    /// Whether a line is due about `address`, and how many visits since the last one nothing was said of. More addresses
    /// than are remembered in a minute have no lines; they are counted all the same, by the metrics.
    pub fn due(&mut self, address: IpAddr, now: u64) -> Option<u64> {
        let until = now.saturating_add(REST);
        if let Some(visits) = self.0.get_mut(&address) {
            if now < visits.until {
                visits.untold = visits.untold.saturating_add(1);
                return None;
            }
            let untold = std::mem::replace(visits, Visits { until, untold: 0 }).untold;
            return Some(untold);
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, visits| now < visits.until);
        }
        if self.0.len() >= MOST {
            return None;
        }
        self.0.insert(address, Visits { until, untold: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_has_one_line_a_minute_and_no_visit_is_forgotten() {
        let mut strangers = Strangers::default();
        let [one, other] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        assert_eq!((strangers.due(one, 0), strangers.due(other, 0)), (Some(0), Some(0)));
        assert!((1..=59).all(|second| strangers.due(one, second).is_none()));
        assert_eq!(
            (strangers.due(one, 60), strangers.due(one, 61), strangers.due(other, 61)),
            (Some(59), None, Some(0))
        );
    }

    #[test]
    fn many_addresses_take_no_more_than_their_memory() {
        let mut strangers = Strangers::default();
        let lines = (0..100_000_u32).filter(|n| strangers.due(Ipv4Addr::from_bits(*n).into(), 0).is_some()).count();
        assert_eq!((lines, strangers.0.len()), (MOST, MOST));
        assert_eq!(strangers.due(Ipv4Addr::from_bits(99_999).into(), REST), Some(0));
    }
}
