//! The clocks, read where decisions take time as an argument.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

use crate::wire::stamp;

/// Seconds since 1970 by the system's clock; 0 where it stands before that.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Now, for decisions about certificates.
#[must_use]
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Now, UTC, `YYYY-MM-DDTHH:MM:SSZ`.
#[must_use]
pub fn utc_now() -> String {
    stamp::utc(unix_now())
}
