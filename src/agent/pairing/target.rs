//! The dispatcher as an operator names it.

use std::fmt;
use std::net::IpAddr;

/// Host and port of a pairing listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
}

/// A text that names no dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no dispatcher: write a name, an address, NAME:PORT, or [IPV6]:PORT")]
pub struct TargetError(String);

impl Target {
    /// Reads a name, an IPv4 or IPv6 address, each with an optional port; `default` stands in for a missing port.
    pub fn parse(text: &str, default: u16) -> Result<Self, TargetError> {
        let fail = || TargetError(text.chars().take(80).collect());
        let (host, port) = split(text).ok_or_else(fail)?;
        let port = match port {
            None => default,
            Some(port) => port.parse().ok().filter(|number| *number != 0).ok_or_else(fail)?,
        };
        if !is_host(host) {
            return Err(fail());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// A name or an address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// A bare IPv6 address has colons and no port.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            port => Some((host, Some(port.strip_prefix(':')?))),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    match text.split_once(':') {
        Some((host, port)) => Some((host, Some(port))),
        None => Some((text, None)),
    }
}

fn is_host(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    text.parse::<IpAddr>().is_ok() || ((1..=253).contains(&text.len()) && text.bytes().all(name))
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_kinds_are_understood() {
        for (text, shown) in [
            ("control", "control:7444"),
            ("control.example.org:7500", "control.example.org:7500"),
            ("192.0.2.1", "192.0.2.1:7444"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("::1", "[::1]:7444"),
            ("[2001:db8::7]", "[2001:db8::7]:7444"),
            ("[2001:db8::7]:99", "[2001:db8::7]:99"),
            ("2001:db8::7:99", "[2001:db8::7:99]:7444"),
        ] {
            assert_eq!(Target::parse(text, 7444).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in
            ["", ":1", "a:", "a:0", "a:65536", "a:b", "[::1", "[a]:1", "[::1]1", "a b", "a/b", "http://a", "a:1:2"]
        {
            assert!(Target::parse(text, 7444).is_err(), "{text}");
        }
    }
}
