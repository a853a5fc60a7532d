//! The signature of the server in memory, and the verifier that knows it.
//!
//! **Invariant:** there is no mode in which any signature is good. Beside those of the certificate's own key, which come
//! from the network, the verifier accepts what was made with a random key that this process has and nobody else.

use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{Signer, SigningKey};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureAlgorithm, SignatureScheme};

use super::super::verify::CaVerifier;

/// Its number; of the numbers for private use (RFC 8446 11). It is offered to nobody.
const SCHEME: SignatureScheme = SignatureScheme::Unknown(0xfe7e);

/// A key that this process has made and that never leaves it. Its signature is a message authentication code.
#[derive(Clone, Debug)]
pub(super) struct OwnKey(hmac::Key);

impl OwnKey {
    /// # Errors
    /// No random bytes.
    pub(super) fn generate() -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        key.map(Self).map_err(|_| Error::FailedToGetRandomBytes)
    }
}

impl SigningKey for OwnKey {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(self.clone()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for OwnKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// The CA's verifier, which knows the signatures of this process's own server too.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) ca: Arc<CaVerifier>,
    pub(super) own: OwnKey,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.ca.verify_server_cert(leaf, others, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(&*self.ca, message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if signed.scheme != SCHEME {
            return ServerCertVerifier::verify_tls13_signature(&*self.ca, message, certificate, signed);
        }
        let verified = hmac::verify(&self.own.0, message, signed.signature());
        let valid = verified.map(|()| HandshakeSignatureValid::assertion());
        valid.map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&*self.ca)
    }
}
