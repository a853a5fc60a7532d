//! The certificate that the CA issues, written as DER (RFC 5280 4.1).
//!
//! rcgen is not used for this one structure: the issuer has to repeat the CA's subject byte for byte, and rcgen's
//! names hold an attribute once and in its own string types.

use time::OffsetDateTime;

use super::chain::TrustAnchor;
use super::key::{KeyError, KeyKind, PrivateKey, PublicKey};
use super::serial::FreshSerial;
use super::{der, signature};
use crate::wire::name::AgentName;

const ID_COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const ID_KEY_ID: [u8; 3] = [0x55, 0x1d, 0x0e];
const ID_KEY_USAGE: [u8; 3] = [0x55, 0x1d, 0x0f];
const ID_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
const ID_BASIC: [u8; 3] = [0x55, 0x1d, 0x13];
const ID_AUTHORITY: [u8; 3] = [0x55, 0x1d, 0x23];
const ID_PURPOSES: [u8; 3] = [0x55, 0x1d, 0x25];
const SERVER_AUTH: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 2];
const TRUE: [u8; 3] = [der::BOOLEAN, 1, 0xff];
/// Context tag 2, primitive: a `dNSName`.
const DNS_NAME: u8 = 0x82;
/// Context tag 0, primitive: a `keyIdentifier`.
const KEY_ID: u8 = 0x80;

/// What varies from leaf to leaf.
pub(super) struct Leaf<'a> {
    pub(super) common_name: &'a AgentName,
    pub(super) public_key: &'a PublicKey,
    pub(super) serial: &'a FreshSerial,
    pub(super) not_before: OffsetDateTime,
    pub(super) not_after: OffsetDateTime,
    /// Whether the common name is a host's and belongs into the alternative names too.
    pub(super) host: bool,
}

/// The DER of the leaf, signed.
pub(super) fn issue(leaf: &Leaf<'_>, ca: &TrustAnchor, key: &PrivateKey) -> Result<Vec<u8>, KeyError> {
    let algorithm = der::sequence(&[signature::of_key(key.public().kind())]);
    let name = leaf.common_name.as_str().as_bytes();
    let attribute = der::sequence(&[&der::wrap(der::OID, &[&ID_COMMON_NAME]), &der::wrap(der::UTF8_STRING, &[name])]);
    let tbs = der::sequence(&[
        // Version 3 is written as 2.
        &der::explicit(0, &[der::INTEGER, 1, 2]),
        &der::wrap(der::INTEGER, &[leaf.serial.octets()]),
        &algorithm,
        ca.certificate().subject_der(),
        &der::sequence(&[&der::time(leaf.not_before), &der::time(leaf.not_after)]),
        &der::sequence(&[&der::wrap(der::SET, &[&attribute])]),
        leaf.public_key.spki(),
        &der::explicit(3, &extensions(leaf, ca)),
    ]);
    let signed = key.sign(&tbs)?;
    Ok(der::sequence(&[&tbs, &algorithm, &der::bit_string(&signed)]))
}

fn extensions(leaf: &Leaf<'_>, ca: &TrustAnchor) -> Vec<u8> {
    // RFC 5280 4.2.1.3: an RSA key may also be used for key transport, which TLS 1.2 peers may look for.
    let usage: [u8; 4] = match leaf.public_key.kind() {
        KeyKind::Rsa(_) => [der::BIT_STRING, 2, 5, 0xa0],
        _ => [der::BIT_STRING, 2, 7, 0x80],
    };
    // Both purposes for all: an agent calls itself with its own certificate, a dispatcher listens for pairing.
    let purposes = der::sequence(&[&der::wrap(der::OID, &[&SERVER_AUTH]), &der::wrap(der::OID, &[&CLIENT_AUTH])]);
    let key_id = key_id(leaf.public_key);
    let mut all = vec![
        extension(&ID_BASIC, true, &der::sequence(&[])),
        extension(&ID_KEY_USAGE, true, &usage),
        extension(&ID_PURPOSES, false, &purposes),
        extension(&ID_KEY_ID, false, &der::wrap(der::OCTET_STRING, &[&key_id])),
    ];
    if let Some(id) = ca.key_id() {
        all.push(extension(&ID_AUTHORITY, false, &der::sequence(&[&der::wrap(KEY_ID, &[id])])));
    }
    let name = leaf.common_name.as_str();
    if leaf.host && is_dns_name(name) {
        all.push(extension(&ID_ALT_NAME, false, &der::sequence(&[&der::wrap(DNS_NAME, &[name.as_bytes()])])));
    }
    der::sequence(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &TRUE } else { &[] };
    der::sequence(&[&der::wrap(der::OID, &[id]), critical, &der::wrap(der::OCTET_STRING, &[value])])
}

/// RFC 7093 2, method 1: the first 160 bits of the key's SHA-256.
fn key_id(key: &PublicKey) -> Vec<u8> {
    super::key::sha256(key.bits()).into_iter().take(20).collect()
}

/// Whether the name is a host name (RFC 1123 2.1) that may stand in a `dNSName`; a dotted address is none.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top_is_word = name.rsplit('.').next().is_some_and(|top| !top.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && top_is_word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_become_alternative_names() {
        for name in ["web-01", "web-01.example.com", "xn--bcher-kva.example", "1a"] {
            assert!(is_dns_name(name), "{name}");
        }
        for name in ["10.0.0.1", "a_b.example", "-a", "a-", "a..b", "a.", "", &"a".repeat(64)] {
            assert!(!is_dns_name(name), "{name}");
        }
    }
}
