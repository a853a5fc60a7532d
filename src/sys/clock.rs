//! The clock, read where decisions take time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 by the system's clock; 0 where it stands before that.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The time of day, as file times are given.
#[must_use]
pub fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
