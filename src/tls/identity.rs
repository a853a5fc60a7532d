//! This host's own certificate and key, and the place from which open listeners take them.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::{any_ecdsa_type, any_supported_type};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};

use crate::pki::cert::{CertError, Certificate};
use crate::pki::key::{self, KeyError, KeyKind, PrivateKey, PublicKey};
use crate::pki::pem::{self, PemError};

/// A certificate and key that cannot be shown to peers.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The certificate's text.
    #[error("the certificate cannot be used")]
    Certificate(#[source] CertError),
    /// The text around it.
    #[error("the certificate file cannot be read")]
    Pem(#[source] PemError),
    /// The private key's text.
    #[error("the private key cannot be used")]
    Key(#[source] KeyError),
    /// A key that TLS cannot sign with.
    #[error("the private key cannot sign TLS handshakes")]
    Signer(#[source] rustls::Error),
    /// They do not belong together.
    #[error("the private key does not belong to the certificate: put back the pair that was made together")]
    Mismatch,
}

/// A certificate with its key, known to belong together.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: Certificate,
    shown: Arc<CertifiedKey>,
    secret: Secret,
}

/// Bytes that whoever has the private key can compute, and nobody else.
#[derive(Clone)]
struct Secret(OkmBlock);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Identity {
    /// Reads a certificate file, leaf first and any further certificates behind it, and its private key. Dates are
    /// not judged: an expired certificate is for the peer to refuse and for the operator to be told about.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let chain = pem::all(certificate_pem, "CERTIFICATE").map_err(IdentityError::Pem)?;
        let leaf = chain.first().ok_or(IdentityError::Pem(PemError::Absent("CERTIFICATE")))?;
        let certificate = Certificate::from_der(leaf).map_err(IdentityError::Certificate)?;
        let key = key::der_from_pem(key_pem).map_err(IdentityError::Key)?;
        let secret = secret_of(&key)?;
        let signer = match signer_of(certificate.public_key(), &key) {
            Some(signer) => signer,
            None => signer_of_any(certificate.public_key(), key)?,
        };
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Ok(Self { certificate, shown: Arc::new(CertifiedKey::new(chain, signer)), secret })
    }

    /// What the certificate says.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What seals the sessions that are kept between processes: 32 bytes that follow from the private key.
    pub(super) const fn secret(&self) -> &OkmBlock {
        &self.secret.0
    }
}

/// The signer of a key that is of the kind of this public key, and its other half. A key that is tried as one of every
/// kind is checked, at the price of a signature, once for each: a process of the command line has no time for that.
fn signer_of(public: &PublicKey, key: &PrivateKeyDer<'_>) -> Option<Arc<dyn SigningKey>> {
    let signer = match public.kind() {
        KeyKind::EcdsaP256 | KeyKind::EcdsaP384 | KeyKind::EcdsaP521 => any_ecdsa_type(key),
        // It begins with RSA.
        KeyKind::Rsa(_) | KeyKind::Ed25519 => any_supported_type(key),
    };
    signer.ok().filter(|signer| signer.public_key().is_some_and(|own| own.as_ref() == public.spki()))
}

/// The signer of a key of whatever kind, or what is wrong with it.
fn signer_of_any(public: &PublicKey, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, IdentityError> {
    let key = PrivateKey::from_der(key).map_err(IdentityError::Key)?;
    if public != key.public() {
        return Err(IdentityError::Mismatch);
    }
    any_supported_type(key.der()).map_err(IdentityError::Signer)
}

fn secret_of(key: &PrivateKeyDer<'_>) -> Result<Secret, IdentityError> {
    let mut bytes = [0; 32];
    let prk = Salt::new(HKDF_SHA256, b"ctrl-exec").extract(key.secret_der());
    let filled = prk.expand(&[b"kept sessions"], HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes));
    filled.map_err(|_| IdentityError::Signer(rustls::Error::General("HKDF failed".to_owned())))?;
    Ok(Secret(OkmBlock::new(&bytes)))
}

/// Holds the identity that the next handshake shows. Replacing it disturbs no open connection.
#[derive(Debug)]
pub struct IdentitySlot(RwLock<Identity>);

impl IdentitySlot {
    /// A slot with this identity in it.
    #[must_use]
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(RwLock::new(identity)))
    }

    /// The identity of the next handshake.
    #[must_use]
    pub fn current(&self) -> Identity {
        // Nothing panics while the lock is held, and a half-replaced identity does not exist.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another identity in.
    pub fn replace(&self, identity: Identity) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }
}

impl ResolvesServerCert for IdentitySlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().shown)
    }
}

impl ResolvesClientCert for IdentitySlot {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Shown whatever CA the server hints at: it then refuses with a reason instead of seeing nobody.
        Some(self.current().shown)
    }

    fn has_certs(&self) -> bool {
        true
    }
}
