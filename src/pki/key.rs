//! Private and public keys: ours (ECDSA P-256), and every form the original's tools wrote (RSA in PKCS#1 or PKCS#8,
//! elliptic curves in SEC 1).

use std::fmt;

use aws_lc_rs::digest;
use rcgen::{PublicKeyData as _, SigningKey as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, alg_id};

use super::{der, pem};

/// Shortest RSA modulus that is accepted anywhere, in bits.
pub const LEAST_RSA_BITS: usize = 2048;
/// Longest RSA modulus, in bits: beyond it one signature check costs a busy host too much.
pub const MOST_RSA_BITS: usize = 8192;

/// What kind of key it is, and for RSA how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA with this many bits.
    Rsa(usize),
    /// ECDSA on NIST P-256.
    EcdsaP256,
    /// ECDSA on NIST P-384.
    EcdsaP384,
    /// ECDSA on NIST P-521.
    EcdsaP521,
    /// Ed25519.
    Ed25519,
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No private key block.
    #[error("there is no private key in it: expected a PEM block 'PRIVATE KEY', 'RSA PRIVATE KEY' or 'EC PRIVATE KEY'")]
    Absent,
    /// More than one private key block.
    #[error("there are several private keys in it, where one belongs")]
    Several,
    /// A passphrase would be needed.
    #[error("the private key is encrypted: remove the passphrase with 'openssl pkey'")]
    Encrypted,
    /// Damaged, of an unknown kind, or too short.
    #[error(
        "the private key is damaged or of a kind that is not supported (RSA from {LEAST_RSA_BITS} bits, ECDSA P-256, \
         P-384 or P-521, Ed25519)"
    )]
    Unusable,
    /// A public key of an unknown algorithm.
    #[error("the public key is neither RSA nor ECDSA on P-256, P-384 or P-521 nor Ed25519")]
    UnknownKind,
    /// An RSA modulus outside the bounds.
    #[error("the RSA key has {0} bits: whole bytes between {LEAST_RSA_BITS} and {MOST_RSA_BITS} bits are accepted")]
    RsaLength(usize),
    /// A public key that is no such key.
    #[error("the public key is damaged")]
    Damaged,
    /// No new key could be made.
    #[error("no key could be generated")]
    Generate,
    /// The private key did not sign.
    #[error("the private key could not sign")]
    Sign,
}

/// A public key that is of a supported kind and length.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    spki: Vec<u8>,
    bits: Vec<u8>,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo` (RFC 5280 4.1.2.7). The algorithm's parameters must be exactly those of
    /// RFC 3279 and RFC 5480: NULL for RSA, a named curve for ECDSA.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let outer = der::only(spki).filter(|outer| outer.tag == der::SEQUENCE).ok_or(KeyError::Damaged)?;
        let parts = der::children(outer.content).ok_or(KeyError::Damaged)?;
        let [algorithm, key] = parts.as_slice() else { return Err(KeyError::Damaged) };
        let [0, bits @ ..] = key.content else { return Err(KeyError::Damaged) };
        let kind = match algorithm.content {
            id if id == alg_id::RSA_ENCRYPTION.as_ref() => KeyKind::Rsa(rsa_bits(bits)?),
            id if id == alg_id::ECDSA_P256.as_ref() => KeyKind::EcdsaP256,
            id if id == alg_id::ECDSA_P384.as_ref() => KeyKind::EcdsaP384,
            id if id == alg_id::ECDSA_P521.as_ref() => KeyKind::EcdsaP521,
            id if id == alg_id::ED25519.as_ref() => KeyKind::Ed25519,
            _ => return Err(KeyError::UnknownKind),
        };
        Ok(Self { kind, spki: spki.to_vec(), bits: bits.to_vec() })
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The key itself: the content of the `subjectPublicKey` BIT STRING.
    #[must_use]
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The content of the key's `AlgorithmIdentifier`: what kind of key it is, as DER says it.
    #[must_use]
    pub fn algorithm_id(&self) -> &'static [u8] {
        match self.kind {
            KeyKind::Rsa(_) => &alg_id::RSA_ENCRYPTION,
            KeyKind::EcdsaP256 => &alg_id::ECDSA_P256,
            KeyKind::EcdsaP384 => &alg_id::ECDSA_P384,
            KeyKind::EcdsaP521 => &alg_id::ECDSA_P521,
            KeyKind::Ed25519 => &alg_id::ED25519,
        }
    }

    /// SHA-256 of the DER `SubjectPublicKeyInfo`: what a registry records to pin a key.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.spki)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.kind)
    }
}

/// Bits of the modulus of a DER `RSAPublicKey` (RFC 8017 A.1.1).
fn rsa_bits(key: &[u8]) -> Result<usize, KeyError> {
    let outer = der::only(key).filter(|outer| outer.tag == der::SEQUENCE).ok_or(KeyError::Damaged)?;
    let parts = der::children(outer.content).ok_or(KeyError::Damaged)?;
    let [modulus, exponent] = parts.as_slice() else { return Err(KeyError::Damaged) };
    if modulus.tag != der::INTEGER || exponent.tag != der::INTEGER {
        return Err(KeyError::Damaged);
    }
    let zeros = modulus.content.iter().take_while(|byte| **byte == 0).count();
    let digits = modulus.content.get(zeros..).unwrap_or_default();
    let bits = digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize);
    if (LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) && bits.is_multiple_of(8) {
        Ok(bits)
    } else {
        Err(KeyError::RsaLength(bits))
    }
}

/// A private key and its public half. Never shown: `Debug` prints the public key alone.
pub struct PrivateKey {
    der: PrivateKeyDer<'static>,
    pair: rcgen::KeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// Reads the one private key of a PEM text, as [`der_from_pem`] finds it.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_der(der_from_pem(text)?)
    }

    /// A key of whatever kind it turns out to be.
    pub fn from_der(der: PrivateKeyDer<'static>) -> Result<Self, KeyError> {
        let pair = rcgen::KeyPair::try_from(&der).map_err(|_| KeyError::Unusable)?;
        let public = PublicKey::from_spki(&pair.subject_public_key_info())?;
        Ok(Self { der, pair, public })
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key as a TLS configuration wants it.
    #[must_use]
    pub const fn der(&self) -> &PrivateKeyDer<'static> {
        &self.der
    }

    /// The key pair as rcgen wants it.
    pub(super) const fn pair(&self) -> &rcgen::KeyPair {
        &self.pair
    }

    /// Signs with the one algorithm that goes with the key: RSA PKCS#1 with SHA-256, ECDSA with the curve's hash.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.pair.sign(message).map_err(|_| KeyError::Sign)
    }

    /// PEM text in the form the key was read or made in. Contains the secret: for a file of mode 0600 or 0640 only.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let label = match self.der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        pem::encode(label, self.der.secret_der())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.public.kind)
    }
}

/// The one private key of a PEM text, not looked into yet: PKCS#8, PKCS#1 or SEC 1. An `EC PARAMETERS` block before it, as
/// `openssl ecparam -genkey` writes it, is passed over.
pub fn der_from_pem(text: &str) -> Result<PrivateKeyDer<'static>, KeyError> {
    // A PKCS#1 key under a passphrase says so in a header, a PKCS#8 key in its label (RFC 7468 11).
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::Encrypted);
    }
    let mut keys = PrivateKeyDer::pem_slice_iter(text.as_bytes());
    let der = keys.next().ok_or(KeyError::Absent)?.map_err(|_| KeyError::Unusable)?;
    if keys.next().is_some() {
        return Err(KeyError::Several);
    }
    Ok(der)
}

/// A new ECDSA P-256 key: what every host and dispatcher of ours has.
pub fn generate() -> Result<PrivateKey, KeyError> {
    generated(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256))
}

/// A new ECDSA P-384 key, for a CA.
pub(super) fn generate_p384() -> Result<PrivateKey, KeyError> {
    generated(rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384))
}

/// A new RSA key of 3072 bits, for pairing with an original dispatcher, which signs no other kind.
pub fn generate_rsa() -> Result<PrivateKey, KeyError> {
    generated(rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_3072))
}

fn generated(pair: Result<rcgen::KeyPair, rcgen::Error>) -> Result<PrivateKey, KeyError> {
    let pair = pair.map_err(|_| KeyError::Generate)?;
    let pkcs8 = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
    let public = PublicKey::from_spki(&pair.subject_public_key_info())?;
    Ok(PrivateKey { der: PrivateKeyDer::Pkcs8(pkcs8), pair, public })
}

/// SHA-256 of these bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::Openssl;

    #[test]
    fn a_new_key_is_read_back_from_its_pem() {
        for key in [generate().unwrap(), generate_p384().unwrap(), generate_rsa().unwrap()] {
            let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
            assert_eq!(again.public(), key.public());
        }
        assert_eq!(generate().unwrap().public().kind(), KeyKind::EcdsaP256);
        assert_eq!(generate_rsa().unwrap().public().kind(), KeyKind::Rsa(3072));
    }

    #[test]
    fn every_form_that_openssl_writes_is_read() {
        let openssl = Openssl::new();
        openssl.run("genrsa -traditional -out pkcs1.pem 2048");
        openssl.run("pkey -in pkcs1.pem -out pkcs8.pem");
        openssl.run("ecparam -name prime256v1 -genkey -out sec1.pem");
        openssl.run("ecparam -name secp384r1 -genkey -noout -out p384.pem");
        openssl.run("genpkey -algorithm ed25519 -out ed.pem");
        let read = |file| PrivateKey::from_pem(&openssl.read(file)).unwrap();
        assert_eq!(read("pkcs1.pem").public(), read("pkcs8.pem").public());
        assert_eq!(read("pkcs1.pem").public().kind(), KeyKind::Rsa(2048));
        assert_eq!(read("sec1.pem").public().kind(), KeyKind::EcdsaP256);
        assert_eq!(read("p384.pem").public().kind(), KeyKind::EcdsaP384);
        assert_eq!(read("ed.pem").public().kind(), KeyKind::Ed25519);
        assert!(read("pkcs1.pem").to_pem().starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    }

    #[test]
    fn the_public_half_is_the_one_that_openssl_sees() {
        let openssl = Openssl::new();
        openssl.write("key.pem", &generate().unwrap().to_pem());
        openssl.run("pkey -in key.pem -pubout -outform DER -out pub.der");
        let key = PrivateKey::from_pem(&openssl.read("key.pem")).unwrap();
        assert_eq!(openssl.read_bytes("pub.der"), key.public().spki());
    }

    #[test]
    fn unusable_keys_are_named_for_what_they_are() {
        let openssl = Openssl::new();
        openssl.run("genrsa -traditional -aes128 -passout pass:secret -out locked1.pem 2048");
        openssl.run("genpkey -algorithm rsa -aes128 -pass pass:secret -out locked8.pem");
        openssl.run("genrsa -out short.pem 1024");
        let read = |file| PrivateKey::from_pem(&openssl.read(file)).unwrap_err();
        assert_eq!(read("locked1.pem"), KeyError::Encrypted);
        assert_eq!(read("locked8.pem"), KeyError::Encrypted);
        assert!(matches!(read("short.pem"), KeyError::Unusable | KeyError::RsaLength(1024)));
        assert_eq!(PrivateKey::from_pem("hello").unwrap_err(), KeyError::Absent);
    }

    #[test]
    fn a_private_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", generate().unwrap()), "PrivateKey(EcdsaP256)");
    }
}
