//! Sessions at rest: sealed with a key that follows from the dispatcher's private key, its certificate and the CA's.
//!
//! So a kept session is of use to those alone who could have made it, and to nobody once the certificate was renewed or
//! the CA exchanged; and what comes out of the seal is what went in, or nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};

use crate::pki::cert::Certificate;
use crate::tls::identity::Identity;
use crate::wire::hex;

/// Seals for one certificate under one CA.
pub(super) struct Vault {
    key: RandomizedNonceKey,
    context: [u8; 64],
}

impl Vault {
    /// For the sessions of `identity` with peers of `ca`.
    ///
    /// # Errors
    /// The cryptographic library refuses.
    pub(super) fn new(identity: &Identity, ca: &Certificate) -> Result<Self, Unspecified> {
        let mut context = [0; 64];
        let (certificate, authority) = context.split_at_mut(32);
        certificate.copy_from_slice(&identity.certificate().sha256());
        authority.copy_from_slice(&ca.sha256());
        let mut key = [0; 32];
        let prk = Prk::new_less_safe(HKDF_SHA256, identity.secret().as_ref());
        prk.expand(&[&context], HKDF_SHA256)?.fill(&mut key)?;
        Ok(Self { key: RandomizedNonceKey::new(&AES_256_GCM, &key)?, context })
    }

    /// The name under which a peer's session is kept. There are 65536 of them, which bounds what is kept; two peers that
    /// share one take turns.
    pub(super) fn name(&self, peer: &str) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.context);
        digest.update(peer.as_bytes());
        hex::encode(digest.finish().as_ref().first_chunk::<2>().map_or(&[], |first| first))
    }

    /// Seals what is kept for a peer.
    pub(super) fn seal(&self, peer: &str, mut plain: Vec<u8>) -> Result<Vec<u8>, Unspecified> {
        let nonce = self.key.seal_in_place_append_tag(Aad::from(peer), &mut plain)?;
        Ok([nonce.as_ref().as_slice(), &plain].concat())
    }

    /// Opens it again; `None` for anything else.
    pub(super) fn open(&self, peer: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN)?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.key.open_in_place(nonce, Aad::from(peer), &mut rest).ok()?.len();
        rest.truncate(length);
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::key;
    use crate::tls::testing::{issue, new_ca, now};

    #[test]
    fn what_was_sealed_is_opened_for_the_same_peer_certificate_key_and_ca_alone() {
        let (ca, other_ca, key) = (new_ca(now()), new_ca(now()), key::generate().unwrap());
        let identity = issue(&ca, "dispatcher", &key, now());
        let vault = |identity: &Identity, ca: &crate::pki::ca::Ca| Vault::new(identity, ca.certificate()).unwrap();
        let sealed = vault(&identity, &ca).seal("10.0.0.1:7443", b"session".to_vec()).unwrap();
        let open = |identity: &Identity, ca: &crate::pki::ca::Ca, peer: &str| vault(identity, ca).open(peer, &sealed);
        assert_eq!(open(&identity, &ca, "10.0.0.1:7443").as_deref(), Some(&b"session"[..]));
        assert_eq!(open(&identity, &ca, "10.0.0.2:7443"), None);
        assert_eq!(open(&identity, &other_ca, "10.0.0.1:7443"), None);
        assert_eq!(open(&issue(&ca, "dispatcher", &key, now()), &ca, "10.0.0.1:7443"), None, "renewed");
        let another = issue(&ca, "dispatcher", &key::generate().unwrap(), now());
        assert_eq!(open(&another, &ca, "10.0.0.1:7443"), None);
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let ca = new_ca(now());
        let vault = Vault::new(&issue(&ca, "d", &key::generate().unwrap(), now()), ca.certificate()).unwrap();
        let sealed = vault.seal("peer", b"session".to_vec()).unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(vault.open("peer", &changed), None, "byte {index}");
            assert_eq!(vault.open("peer", &sealed[..index]), None, "{index} bytes");
        }
        assert_ne!(sealed, vault.seal("peer", b"session".to_vec()).unwrap());
    }
}
