//! The time of day where the system is.

/// A moment on the clock of the wall, to the second. There is no year: syslog's time stamp has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 60, a leap second included.
    pub second: u8,
}

/// The local time `epoch` seconds after 1970 (UTC): in the zone of `TZ` or `/etc/localtime`, or UTC without either.
/// A moment too far off for the C library is the first of January.
#[must_use]
pub fn at(epoch: i64) -> LocalTime {
    // SAFETY: an all-zero `tm` is a valid value: integers, and a zone pointer that may be null. Both pointers are to
    // live values of the right type for the time of the call; localtime_r keeps neither. It reads the environment,
    // which nothing in this program changes.
    #[expect(unsafe_code, reason = "nothing else knows the system's time zone")]
    let (known, fields) = unsafe {
        let mut fields: libc::tm = std::mem::zeroed();
        let known = !libc::localtime_r(&raw const epoch, &raw mut fields).is_null();
        (known, fields)
    };
    let small = |value: libc::c_int| u8::try_from(value).unwrap_or(0);
    if !known {
        return LocalTime { month: 1, day: 1, hour: 0, minute: 0, second: 0 };
    }
    LocalTime {
        month: small(fields.tm_mon) + 1,
        day: small(fields.tm_mday),
        hour: small(fields.tm_hour),
        minute: small(fields.tm_min),
        second: small(fields.tm_sec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_pass_in_every_zone_alike() {
        let (early, late) = (at(1_700_000_000), at(1_700_000_059));
        assert_eq!((early.second, late.second), (20, 19));
        // 2023-11-14T22:13:20Z is the 14th or 15th everywhere.
        assert!(early.month == 11 && (14..=15).contains(&early.day), "{early:?}");
    }

    #[test]
    fn a_moment_out_of_range_is_no_failure() {
        assert_eq!(at(i64::MAX).month, 1);
    }
}
