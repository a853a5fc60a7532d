//! `allowed_ips`: addresses and networks of both families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::diagnostic::shown;
use super::value::Complaint;

/// The peers that may connect. Never empty: an absent list is no list, not an empty one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedIps(Vec<IpNet>);

impl AllowedIps {
    /// **Invariant:** a list that lost every entry allows nobody; it never stands for "no restriction".
    pub(super) const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `peer` may connect. An IPv4 peer of a dual-stack socket (`::ffff:a.b.c.d`) is the IPv4 peer.
    #[must_use]
    pub fn allows(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// The networks as understood, with host bits cleared.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }
}

/// Reads one entry: an address or `address/prefix`, host bits ignored.
pub(super) fn network(text: &str) -> Result<IpNet, Complaint> {
    let malformed = || {
        Complaint::of_key(format!("has a malformed entry '{}'", shown(text)))
            .help("an address or a network: 192.168.1.10, 10.0.0.0/8, 2001:db8::/32")
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix_length(prefix).ok_or_else(malformed)?)),
        None => (text, None),
    };
    let network = match quad(address) {
        Some(v4) => Ipv4Net::new(v4, prefix.unwrap_or(32)).ok().map(IpNet::V4),
        None => address.parse().ok().and_then(|v6| v6_network(v6, prefix.unwrap_or(128))),
    };
    network.map(|network| network.trunc()).ok_or_else(malformed)
}

/// An IPv4-mapped network is the IPv4 network: peers are compared in that form.
fn v6_network(address: Ipv6Addr, prefix: u8) -> Option<IpNet> {
    match (address.to_ipv4_mapped(), prefix.checked_sub(96)) {
        (Some(v4), Some(prefix)) => Ipv4Net::new(v4, prefix).ok().map(IpNet::V4),
        _ => Ipv6Net::new(address, prefix).ok().map(IpNet::V6),
    }
}

fn prefix_length(text: &str) -> Option<u8> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Four decimal numbers. Leading zeros are only zeros, as they always were in this file: `010.0.0.1` is `10.0.0.1`.
fn quad(text: &str) -> Option<Ipv4Addr> {
    let octet = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => Some(0),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse::<u8>().ok(),
        _ => None,
    };
    let octets: Vec<u8> = text.split('.').map(octet).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> AllowedIps {
        AllowedIps::new(text.split(',').map(|entry| network(entry).unwrap()).collect())
    }

    #[test]
    fn any_prefix_of_both_families_matches_its_addresses() {
        let allowed = list("192.168.1.10,10.1.2.3/8,172.16.0.0/12,2001:db8::1/32,fe80::1");
        for inside in ["192.168.1.10", "10.255.0.1", "172.31.9.9", "2001:db8:ffff::2", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(allowed.allows(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["192.168.1.11", "11.0.0.1", "172.32.0.1", "2001:db9::1", "fe80::2", "::1"] {
            assert!(!allowed.allows(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn leading_zeros_are_only_zeros() {
        assert_eq!(network("010.000.0.01").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("10.0.0.0/08").unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_mapped_network_is_the_ipv4_network() {
        assert_eq!(network("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
        assert!(list("0.0.0.0/0").allows("1.2.3.4".parse().unwrap()));
        assert!(!list("0.0.0.0/0").allows("::1".parse().unwrap()));
    }

    #[test]
    fn a_malformed_entry_is_refused() {
        let bad = ["", "10.0.0", "10.0.0.0.1", "256.1.1.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/+8"];
        let worse = ["::1/129", "host", "10..0.1", "fe80::1%eth0", "10.0.0.0/8/8", "1.2.3.4 5.6.7.8", "[::1]"];
        for entry in bad.into_iter().chain(worse) {
            assert!(network(entry).is_err(), "{entry}");
        }
    }
}
