//! The cipher suites of TLS 1.3 as the provider has them, watched in two places: where a decrypted handshake message
//! comes out, and where a ticket's secret is derived (RFC 8446 4.6.1). All else passes straight through.

use std::sync::LazyLock;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Tls13AeadAlgorithm,
    UnsupportedOperationError,
};
use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::crypto::{CipherSuiteCommon, hmac};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls13CipherSuite};

use super::super::provider::provider;
use super::watch;

/// Every suite of the provider; those of TLS 1.3 watched.
pub(super) fn watched() -> &'static [SupportedCipherSuite] {
    static SUITES: LazyLock<Vec<SupportedCipherSuite>> =
        LazyLock::new(|| provider().cipher_suites.iter().map(watch_over).collect());
    &SUITES
}

fn watch_over(suite: &SupportedCipherSuite) -> SupportedCipherSuite {
    let Some(inner) = suite.tls13() else { return *suite };
    let common = CipherSuiteCommon {
        suite: inner.common.suite,
        hash_provider: inner.common.hash_provider,
        confidentiality_limit: inner.common.confidentiality_limit,
    };
    // rustls wants suites that live for ever, and so do these.
    SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
        common,
        hkdf_provider: Box::leak(Box::new(Derivation(inner.hkdf_provider))),
        aead_alg: Box::leak(Box::new(Aead(inner.aead_alg))),
        quic: None,
    })))
}

struct Derivation(&'static dyn Hkdf);

impl Hkdf for Derivation {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.0.extract_from_zero_ikm(salt)
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        self.0.extract_from_secret(salt, secret)
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(self.0.expander_for_okm(okm)))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        self.0.hmac_sign(key, message)
    }
}

struct Expander(Box<dyn HkdfExpander>);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        self.0.expand_slice(info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        match ticket_nonce(&info.concat()) {
            Some(nonce) => watch::psk(nonce, || self.0.expand_block(info)),
            None => self.0.expand_block(info),
        }
    }

    fn hash_len(&self) -> usize {
        self.0.hash_len()
    }
}

/// The nonce, where `HKDF-Expand` is asked for the secret of a ticket: a length, the label with its length, the context
/// with its length (`HkdfLabel`, RFC 8446 7.1).
fn ticket_nonce(info: &[u8]) -> Option<&[u8]> {
    let context = info.get(2..)?.strip_prefix(b"\x10tls13 resumption")?;
    let (length, nonce) = context.split_first()?;
    (usize::from(*length) == nonce.len()).then_some(nonce)
}

struct Aead(&'static dyn Tls13AeadAlgorithm);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.0.encrypter(key, iv)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Decrypter(self.0.decrypter(key, iv)))
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv)
    }
}

struct Decrypter(Box<dyn MessageDecrypter>);

impl MessageDecrypter for Decrypter {
    fn decrypt<'a>(&mut self, message: InboundOpaqueMessage<'a>, seq: u64) -> Result<InboundPlainMessage<'a>, Error> {
        let plain = self.0.decrypt(message, seq)?;
        if plain.typ == ContentType::Handshake {
            watch::message(plain.payload);
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_of_a_ticket_is_watched() {
        assert_eq!(ticket_nonce(b"\x00\x30\x10tls13 resumption\x03abc"), Some(&b"abc"[..]));
        for other in [
            &b""[..],
            b"\x00\x30",
            b"\x00\x30\x10tls13 resumption",
            b"\x00\x30\x10tls13 resumption\x04abc",
            b"\x00\x30\x10tls13 res master\x00",
            b"\x00\x30\x10tls13 res binder\x00",
        ] {
            assert_eq!(ticket_nonce(other), None);
        }
    }

    #[test]
    fn the_watched_suites_are_those_of_the_provider_in_its_order() {
        let names =
            |suites: &[SupportedCipherSuite]| suites.iter().map(SupportedCipherSuite::suite).collect::<Vec<_>>();
        assert_eq!(names(watched()), names(&provider().cipher_suites));
    }
}
