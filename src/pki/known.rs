//! Peers that come back: whether a certificate holds is judged anew each time, the CA's signature over it is computed once.
//!
//! A signature over given bytes by a given key holds for ever; dates, usages and the rest of [`super::chain`] are about
//! this moment. Computing it is also what costs: with the P-384 key of a CA of ours half a millisecond, more than all
//! the rest of a handshake.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use super::chain::{self, ChainError, Signature, TrustAnchor, Usage, VerifiedLeaf};

/// Leaves that are remembered, 32 bytes each. Beyond that all are forgotten, which costs no more than time.
const MOST: usize = 4096;

/// One CA, and the leaves that are known to bear its signature.
///
/// **Invariant:** a leaf is known by the SHA-256 of all its bytes, the signature included, and only after the signature
/// was found to be good. A CA that is read again begins with nothing.
#[derive(Debug)]
pub struct KnowingCa {
    ca: TrustAnchor,
    signed: Mutex<HashSet<[u8; 32]>>,
}

impl KnowingCa {
    /// A CA that has seen no leaf yet.
    #[must_use]
    pub fn new(ca: TrustAnchor) -> Self {
        Self { ca, signed: Mutex::default() }
    }

    /// The CA's certificate and what it allows.
    #[must_use]
    pub const fn anchor(&self) -> &TrustAnchor {
        &self.ca
    }

    /// As [`chain::verify`], everything.
    pub fn verify(&self, leaf: &[u8], usage: Usage, now: OffsetDateTime) -> Result<VerifiedLeaf, ChainError> {
        let digest = digest(leaf);
        let known = self.signed().contains(&digest);
        let signature = if known { Signature::Known } else { Signature::Compute };
        let verified = chain::judge(leaf, &self.ca, usage, now, signature)?;
        if !known {
            self.remember(digest);
        }
        Ok(verified)
    }

    /// Takes somebody's word for the signature over `leaf`.
    ///
    /// **Invariant:** the word is that of [`Self::verify`] with the same CA certificate, and nobody could change it since.
    pub fn vouch(&self, leaf: &[u8]) {
        self.remember(digest(leaf));
    }

    fn remember(&self, digest: [u8; 32]) {
        let mut signed = self.signed();
        if signed.len() >= MOST {
            signed.clear();
        }
        signed.insert(digest);
    }

    fn signed(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digest(leaf: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::pki::ca::{Ca, DEFAULT_NAME};
    use crate::pki::cert::Certificate;
    use crate::pki::csr::{self, ExpectedName};
    use crate::pki::{key, serial};
    use crate::wire::name::AgentName;

    fn site() -> (Ca, Certificate) {
        let now = OffsetDateTime::now_utc();
        let ca = Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), now).unwrap();
        let request = csr::make(&key::generate().unwrap(), &AgentName::parse("leaf").unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Any).unwrap();
        let leaf = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, now).unwrap();
        (ca, leaf)
    }

    #[test]
    fn a_known_leaf_is_still_judged_by_its_dates() {
        let (ca, leaf) = site();
        let knowing = KnowingCa::new(ca.anchor().clone());
        let at = |moment| knowing.verify(leaf.der(), Usage::Client, moment);
        assert!(at(leaf.not_after()).is_ok() && at(leaf.not_after()).is_ok());
        assert_eq!(at(leaf.not_after() + Duration::SECOND), Err(ChainError::Expired(leaf.not_after())));
        assert!(at(leaf.not_before() - Duration::days(1)).is_err());
    }

    #[test]
    fn a_signature_that_does_not_hold_is_never_known() {
        let ((ca, leaf), (_, stranger)) = (site(), site());
        let knowing = KnowingCa::new(ca.anchor().clone());
        knowing.verify(leaf.der(), Usage::Client, leaf.not_before()).unwrap();
        for _ in 0..2 {
            assert!(knowing.verify(stranger.der(), Usage::Client, stranger.not_before()).is_err());
        }
        let mut changed = leaf.der().to_vec();
        *changed.last_mut().unwrap() ^= 1;
        assert!(knowing.verify(&changed, Usage::Client, leaf.not_before()).is_err());
        assert_eq!(knowing.signed().len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (ca, _) = site();
        let knowing = KnowingCa::new(ca.anchor().clone());
        for number in 0..2 * MOST {
            knowing.vouch(&number.to_be_bytes());
        }
        assert!(knowing.signed().len() <= MOST);
    }
}
