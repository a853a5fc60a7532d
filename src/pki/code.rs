//! Confirmation codes: what two people compare before an agent is paired.
//!
//! Between our own ends the exchange is commit-then-reveal over one TLS 1.3 connection:
//!
//! 1. agent to dispatcher: certificate request, and a commitment to a nonce that is still secret;
//! 2. dispatcher to agent: its own nonce and the CA certificate;
//! 3. agent to dispatcher: the nonce, which must open the commitment;
//! 4. both show seven digits over the TLS exporter, both nonces, the request, the dispatcher's key and the CA.
//!
//! What each part stops:
//!
//! - *A relay* holds two TLS connections with two different exporters, so the two codes differ unless it is lucky.
//!   It cannot grind for luck: towards the dispatcher its nonce is committed before it learns the dispatcher's;
//!   towards the agent it must send a nonce before it learns the agent's. One guess in ten million for each
//!   exchange, and every exchange is counted by the listener's rate limit.
//! - *A swapped request, key or CA* changes the code, since all three are hashed.
//! - *A replay* of a commitment on another connection fails, since the exporter is part of it.
//!
//! The original's code hashes the request alone: an interceptor finds a request with the same six digits in seconds,
//! and nothing of the dispatcher is covered. It is shown with six digits and no hyphen, so that nobody takes one
//! kind for the other.

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{Context, SHA256};

use crate::wire::pair::NONCE;

/// Bytes of a TLS exporter and of every hash here.
pub const HASH: usize = 32;

/// The original's code: SHA-256 of the request's text as sent, first four bytes, modulo a million.
#[must_use]
pub fn original(csr: &str) -> String {
    let hash = sha256(&[csr.as_bytes()]);
    let number = hash.iter().take(4).fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    format!("{:06}", number % 1_000_000)
}

/// The commitment that an agent sends before it learns the dispatcher's nonce.
#[must_use]
pub fn commitment(exporter: &[u8; HASH], csr: &str, nonce: &[u8; NONCE]) -> [u8; HASH] {
    sha256(&[b"ctrl-exec-pair/2 commitment", exporter, &sha256(&[csr.as_bytes()]), nonce])
}

/// Whether a revealed nonce is the one committed to. Constant time.
#[must_use]
pub fn opens(commitment: &[u8; HASH], exporter: &[u8; HASH], csr: &str, nonce: &[u8; NONCE]) -> bool {
    let expected = self::commitment(exporter, csr, nonce);
    constant_time::verify_slices_are_equal(commitment, &expected).is_ok()
}

/// Everything that the strong code covers. Both ends fill it from what they saw themselves.
#[derive(Clone, Copy, Debug)]
pub struct Transcript<'a> {
    /// TLS exporter of this connection.
    pub exporter: &'a [u8; HASH],
    /// The agent's nonce.
    pub agent_nonce: &'a [u8; NONCE],
    /// The dispatcher's nonce.
    pub dispatcher_nonce: &'a [u8; NONCE],
    /// The certificate request, PEM as sent.
    pub csr: &'a str,
    /// SHA-256 of the public key (SPKI) that the dispatcher's end of the connection proved to hold.
    pub dispatcher_key: &'a [u8; HASH],
    /// The CA certificate, DER.
    pub ca: &'a [u8],
}

impl Transcript<'_> {
    /// Seven digits, shown as `123-4567`.
    #[must_use]
    pub fn code(&self) -> String {
        let hash = sha256(&[
            b"ctrl-exec-pair/2 code",
            self.exporter,
            self.agent_nonce,
            self.dispatcher_nonce,
            &sha256(&[self.csr.as_bytes()]),
            self.dispatcher_key,
            &sha256(&[self.ca]),
        ]);
        // 64 bits modulo ten million: the bias is below one in 10^12.
        let number = hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)) % 10_000_000;
        format!("{:03}-{:04}", number / 10_000, number % 10_000)
    }
}

/// SHA-256 over the parts. Every part but the first (a fixed label) has a fixed length, so none can borrow bytes from
/// its neighbour.
fn sha256(parts: &[&[u8]]) -> [u8; HASH] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; HASH];
    for (place, byte) in hash.iter_mut().zip(context.finish().as_ref()) {
        *place = *byte;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_codes_are_the_originals() {
        assert_eq!(original("abc"), "432319");
        let csr = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
        assert_eq!(original(csr), "179552");
    }

    #[test]
    fn the_two_kinds_of_code_look_different() {
        let code = transcript(&[1; 32], &[2; 32], "csr").code();
        assert_eq!(code.len(), 8);
        assert_eq!(code.as_bytes()[3], b'-');
    }

    fn transcript<'a>(exporter: &'a [u8; 32], key: &'a [u8; 32], csr: &'a str) -> Transcript<'a> {
        Transcript { exporter, agent_nonce: &[7; 32], dispatcher_nonce: &[8; 32], csr, dispatcher_key: key, ca: b"ca" }
    }

    #[test]
    fn every_part_changes_the_code() {
        let base = transcript(&[1; 32], &[2; 32], "csr");
        let others = [
            Transcript { exporter: &[9; 32], ..base },
            Transcript { agent_nonce: &[9; 32], ..base },
            Transcript { dispatcher_nonce: &[9; 32], ..base },
            Transcript { csr: "other", ..base },
            Transcript { dispatcher_key: &[9; 32], ..base },
            Transcript { ca: b"other", ..base },
        ];
        for other in others {
            assert_ne!(other.code(), base.code(), "{other:?}");
        }
    }

    #[test]
    fn a_commitment_opens_only_with_its_nonce_on_its_connection() {
        let sent = commitment(&[1; 32], "csr", &[2; 32]);
        assert!(opens(&sent, &[1; 32], "csr", &[2; 32]));
        assert!(!opens(&sent, &[9; 32], "csr", &[2; 32]));
        assert!(!opens(&sent, &[1; 32], "other", &[2; 32]));
        assert!(!opens(&sent, &[1; 32], "csr", &[9; 32]));
    }
}
