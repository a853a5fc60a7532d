//! The text of one value to its type, or a complaint that says what would be right.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::{Diagnostic, shown};
use super::lexer::Span;

/// The longest path a unix socket can be bound to, in bytes: `sun_path` without its NUL, `unix(7)`.
const MAX_SOCKET_PATH: usize = 107;

/// Why a value was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    message: String,
    names_key: bool,
    help: Option<String>,
}

impl Complaint {
    /// A message that stands alone.
    pub(super) fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), names_key: true, help: None }
    }

    /// A message that continues the key's name: `must be numeric`.
    pub(super) fn of_key(message: impl Into<String>) -> Self {
        Self { message: message.into(), names_key: false, help: None }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The finished error about `key`'s value at `span`.
    pub(super) fn at(self, prefix: &str, key: &str, span: &Span<'_>) -> Diagnostic {
        let name = if self.names_key { String::new() } else { format!("{key} ") };
        let error = span.error(format!("{prefix}{name}{}", self.message));
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// A whole number in decimal digits within `limits`.
pub(super) fn number(limits: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, Complaint> {
    move |text| {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Complaint::of_key(format!("must be numeric, not '{}'", shown(text))));
        }
        // More digits than fit are as far out of range as any number.
        let value = text.parse().unwrap_or(u64::MAX);
        if limits.contains(&value) {
            return Ok(value);
        }
        Err(Complaint::of_key(format!("must be from {} to {}, not {}", limits.start(), limits.end(), shown(text))))
    }
}

/// A count that fits a `u32`.
pub(super) fn count(limits: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, Complaint> {
    let parse = number((*limits.start()).into()..=(*limits.end()).into());
    move |text| parse(text).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

/// A time in whole seconds.
pub(super) fn seconds(limits: RangeInclusive<u32>) -> impl Fn(&str) -> Result<Duration, Complaint> {
    let parse = count(limits);
    move |text| {
        parse(text)
            .map(|value| Duration::from_secs(value.into()))
            .map_err(|complaint| complaint.help("a time in whole seconds, without a unit"))
    }
}

/// A TCP port.
pub(super) fn port(text: &str) -> Result<u16, Complaint> {
    number(1..=65535)(text).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
}

/// A TCP port to listen on, where 0 lets the kernel choose.
pub(super) fn port_or_any(text: &str) -> Result<u16, Complaint> {
    number(0..=65535)(text).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
}

/// Yes or no.
pub(super) fn switch(text: &str) -> Result<bool, Complaint> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "y" | "yes" | "true" | "on" => Ok(true),
        "0" | "n" | "no" | "false" | "off" => Ok(false),
        _ => Err(Complaint::of_key(format!("must be yes or no, not '{}'", shown(text)))
            .help("also taken: 1 and 0, true and false, on and off")),
    }
}

/// `allow` (true) or `deny` (false).
pub(super) fn allow_or_deny(text: &str) -> Result<bool, Complaint> {
    match text.to_ascii_lowercase().as_str() {
        "allow" => Ok(true),
        "deny" => Ok(false),
        _ => Err(Complaint::of_key(format!("must be 'allow' or 'deny', not '{}'", shown(text)))),
    }
}

/// Any path.
#[expect(clippy::unnecessary_wraps, reason = "it stands where functions stand that can refuse")]
pub(super) fn path(text: &str) -> Result<PathBuf, Complaint> {
    Ok(PathBuf::from(text))
}

/// A path from the root directory.
pub(super) fn absolute(text: &str) -> Result<PathBuf, Complaint> {
    if text.starts_with('/') {
        return Ok(PathBuf::from(text));
    }
    Err(Complaint::of_key(format!("must be an absolute path, not '{}'", shown(text))).help("write it from '/'"))
}

/// A path that a unix socket can be bound to.
pub(super) fn socket(text: &str) -> Result<PathBuf, Complaint> {
    if text.len() > MAX_SOCKET_PATH {
        let message = format!("is {} bytes long, a socket's path has at most {MAX_SOCKET_PATH}", text.len());
        return Err(Complaint::of_key(message));
    }
    absolute(text)
}

/// A directory that a profile's script may write to.
pub(super) fn writable(text: &str) -> Result<PathBuf, Complaint> {
    absolute(text).map_err(|_| Complaint::plain(format!("writable path must be absolute: '{}'", shown(text))))
}

/// An address to listen on, IPv6 with or without brackets.
pub(super) fn address(text: &str) -> Result<IpAddr, Complaint> {
    let bare = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| {
        Complaint::of_key(format!("must be an IP address, not '{}'", shown(text)))
            .help("for example 127.0.0.1 or ::1; 0.0.0.0 and :: mean every address")
    })
}

/// An address of the API, where `localhost` was always taken too.
pub(super) fn api_address(text: &str) -> Result<IpAddr, Complaint> {
    if text.eq_ignore_ascii_case("localhost") { Ok(IpAddr::from([127, 0, 0, 1])) } else { address(text) }
}

/// So many events of one source within a window, and what a source that exceeds it is in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Events that pass within the window; the next one blocks the source.
    pub limit: NonZeroU32,
    /// How far back events count.
    pub window: Duration,
    /// How long a blocked source stays blocked.
    pub block: Duration,
}

impl RateLimit {
    /// A limit of `limit` events (at least one) in `window` seconds, blocking for `block` seconds.
    pub(super) fn new(limit: u32, window: u32, block: u32) -> Self {
        Self {
            limit: NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN),
            window: Duration::from_secs(window.into()),
            block: Duration::from_secs(block.into()),
        }
    }
}

/// `limit/window/block`. A limit of 0 switches it off.
pub(super) fn rate(text: &str) -> Result<Option<RateLimit>, Complaint> {
    let malformed = || {
        Complaint::of_key(format!("must be limit/window/block in whole numbers, not '{}'", shown(text)))
            .help("10/60/300 lets 10 pass in 60 seconds and then blocks for 300; 0/0/0 switches the limit off")
    };
    let numbers: Option<Vec<u32>> = text.split('/').map(|part| count(0..=u32::MAX)(part).ok()).collect();
    match numbers.as_deref() {
        Some([0, _, _]) => Ok(None),
        Some([_, 0, _] | [_, _, 0]) => {
            Err(Complaint::of_key("has a window or block of 0 seconds, which would never block anyone")
                .help("write 0/0/0 to switch the limit off"))
        }
        Some(&[limit, window, block]) => Ok(Some(RateLimit::new(limit, window, block))),
        _ => Err(malformed()),
    }
}

/// A part of one CPU in percent, with or without the sign, within `limits`.
pub(super) fn percent(limits: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, Complaint> {
    let parse = count(limits);
    move |text| {
        let digits = text.strip_suffix('%').map_or(text, str::trim_end);
        parse(digits).map_err(|complaint| complaint.help("in percent of one CPU: 50% is half of one, 200% are two"))
    }
}

/// Permission bits in octal digits.
pub(super) fn umask(text: &str) -> Result<u32, Complaint> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mask = u32::from_str_radix(digits, 8).ok().filter(|mask| octal && *mask <= 0o777);
    mask.ok_or_else(|| {
        Complaint::of_key(format!("must be an octal number up to 0777, not '{}'", shown(text)))
            .help("022 keeps others from writing, 077 from everything")
    })
}

/// A number of bytes, plain or in `KiB`, `MiB` or `GiB` (short: `K`, `M`, `G`), within `limits`.
pub(super) fn bytes(limits: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, Complaint> {
    const UNITS: [(&str, u64); 6] =
        [("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)];
    move |text| {
        let lower = text.to_ascii_lowercase();
        let unit = UNITS.iter().find_map(|(name, size)| Some((lower.strip_suffix(name)?.trim_end(), *size)));
        let (digits, size) = unit.unwrap_or((lower.as_str(), 1));
        let plain = number(0..=u64::MAX)(digits)
            .map_err(|_| Complaint::of_key(format!("must be a number of bytes, not '{}'", shown(text))))
            .map_err(|complaint| {
                complaint.help("a plain number, or one with KiB, MiB or GiB (or K, M, G) behind it")
            })?;
        let value = plain.saturating_mul(size);
        if limits.contains(&value) {
            return Ok(value);
        }
        let (least, most) = (limits.start(), limits.end());
        Err(Complaint::of_key(format!("must be from {least} to {most} bytes, not {}", shown(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why<T: std::fmt::Debug>(outcome: Result<T, Complaint>) -> String {
        outcome.unwrap_err().message
    }

    #[test]
    fn numbers_are_decimal_digits_within_their_limits() {
        assert_eq!(number(1..=600)("600"), Ok(600));
        assert_eq!(number(1..=600)("007"), Ok(7));
        for bad in ["", "-1", "+1", "1.5", "0x10", "1 0", "١"] {
            assert!(why(number(0..=9)(bad)).starts_with("must be numeric"), "{bad}");
        }
        assert_eq!(why(number(1..=600)("601")), "must be from 1 to 600, not 601");
        assert!(why(number(1..=600)(&"9".repeat(40))).starts_with("must be from 1 to 600"));
        assert_eq!(port("65535"), Ok(65535));
        assert!(port("0").is_err() && port("65536").is_err());
        assert_eq!(port_or_any("0"), Ok(0));
        assert_eq!(seconds(0..=10)("3"), Ok(Duration::from_secs(3)));
    }

    #[test]
    fn a_switch_takes_the_usual_words_in_any_case_and_nothing_else() {
        for yes in ["1", "yes", "YES", "true", "On", "y"] {
            assert_eq!(switch(yes), Ok(true), "{yes}");
        }
        for no in ["0", "no", "False", "OFF", "n"] {
            assert_eq!(switch(no), Ok(false), "{no}");
        }
        for odd in ["2", "yess", "10", "enabled"] {
            assert!(switch(odd).is_err(), "{odd}");
        }
        assert_eq!((allow_or_deny("Allow"), allow_or_deny("deny")), (Ok(true), Ok(false)));
        assert!(allow_or_deny("maybe").is_err());
    }

    #[test]
    fn a_rate_is_three_numbers_and_a_limit_of_zero_is_none() {
        assert_eq!(rate("10/60/300"), Ok(Some(RateLimit::new(10, 60, 300))));
        assert_eq!(rate("007/060/300"), Ok(Some(RateLimit::new(7, 60, 300))));
        assert_eq!(rate("0/0/0"), Ok(None));
        for bad in ["10/60", "10/60/300/4", "a/1/1", "1 /2/3", "1//3", "5000000000/1/1", "-1/1/1"] {
            assert!(why(rate(bad)).starts_with("must be limit/window/block"), "{bad}");
        }
        assert!(why(rate("1/0/5")).contains("never block"));
        assert!(why(rate("1/5/0")).contains("never block"));
    }

    #[test]
    fn bytes_have_binary_units_or_none() {
        let parse = bytes(0..=u64::MAX);
        assert_eq!(parse("4096"), Ok(4096));
        assert_eq!(parse("1KiB"), Ok(1024));
        assert_eq!(parse("16 MiB"), Ok(16 << 20));
        assert_eq!(parse("2gib"), Ok(2 << 30));
        assert_eq!((parse("1K"), parse("32M"), parse("3 g")), (Ok(1 << 10), Ok(32 << 20), Ok(3 << 30)));
        for bad in ["", "MiB", "1MB", "1.5MiB", "-1"] {
            assert!(why(parse(bad)).contains("number of bytes"), "{bad}");
        }
        assert!(bytes(1024..=2048)("1").is_err());
        assert!(bytes(0..=2048)("99999999999999999999GiB").is_err());
    }

    #[test]
    fn a_share_of_the_cpu_is_in_percent_with_or_without_the_sign() {
        let parse = percent(1..=400);
        assert_eq!((parse("50"), parse("50%"), parse("400 %")), (Ok(50), Ok(50), Ok(400)));
        for bad in ["", "%", "0", "401", "0.5", "50%%", "half"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_umask_is_octal() {
        assert_eq!((umask("022"), umask("0077"), umask("0o27"), umask("0")), (Ok(0o22), Ok(0o77), Ok(0o27), Ok(0)));
        for bad in ["", "8", "0x12", "1777", "-1", "+22", "00022", "0o", "rwx"] {
            assert!(why(umask(bad)).starts_with("must be an octal number"), "{bad}");
        }
    }

    #[test]
    fn paths_that_must_be_absolute_are() {
        assert_eq!(absolute("/a b"), Ok(PathBuf::from("/a b")));
        assert!(why(absolute("bin/hook")).contains("must be an absolute path"));
        assert_eq!(why(writable("tmp")), "writable path must be absolute: 'tmp'");
        assert!(socket("/run/x.sock").is_ok());
        assert!(why(socket(&format!("/{}", "x".repeat(107)))).contains("108 bytes"));
    }

    #[test]
    fn addresses_are_of_both_families() {
        assert_eq!(address("127.0.0.1").unwrap().to_string(), "127.0.0.1");
        assert_eq!(address("[::1]"), address("::1"));
        assert!(address("localhost").is_err() && address("10.0.0.1/8").is_err() && address("[::1").is_err());
        assert_eq!(api_address("localhost"), address("127.0.0.1"));
    }
}
