//! Verifiers: the peer's certificate by [`crate::pki::chain`], the handshake's signature by the key in it.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved, SignatureScheme,
};
use time::OffsetDateTime;

use super::provider::provider;
use crate::pki::cert::Certificate;
use crate::pki::chain::{ChainError, SignatureError, TrustAnchor, Usage};
use crate::pki::key::PublicKey;
use crate::pki::known::KnowingCa;

/// Accepts what the one CA signed, in either role.
#[derive(Debug)]
pub(super) struct CaVerifier {
    ca: KnowingCa,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Accepts any certificate and demands that the peer holds its key: pairing, where nothing is known yet.
#[derive(Debug)]
pub(super) struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl CaVerifier {
    pub(super) fn new(ca: &TrustAnchor) -> Arc<Self> {
        // The original's OpenSSL sends the CA's name too, and clients with several certificates choose by it.
        let hints = vec![DistinguishedName::from(ca.certificate().subject_der().to_vec())];
        Arc::new(Self {
            ca: KnowingCa::new(ca.clone()),
            hints,
            algorithms: provider().signature_verification_algorithms,
        })
    }

    /// The CA, which remembers whom it has signed.
    pub(super) const fn ca(&self) -> &KnowingCa {
        &self.ca
    }

    /// Whether the other one judges by the same CA certificate.
    pub(super) fn has_the_ca_of(&self, other: &Self) -> bool {
        self.ca.anchor().certificate().der() == other.ca.anchor().certificate().der()
    }

    /// Whether a peer's certificate holds now.
    pub(super) fn judge(&self, leaf: &CertificateDer<'_>, usage: Usage, now: UnixTime) -> Result<(), Error> {
        let moment = i64::try_from(now.as_secs()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
        let moment = moment.ok_or(Error::FailedToGetCurrentTime)?;
        self.ca.verify(leaf, usage, moment).map(drop).map_err(|error| refused(error, now))
    }
}

impl AnyCertificate {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: provider().signature_verification_algorithms })
    }
}

/// The methods that both of rustls' verifier traits ask for in the same words: the handshake's signature, by the key in
/// the certificate.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            tls12(&self.algorithms, message, certificate, signed)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            tls13(&self.algorithms, message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for CaVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(leaf, Usage::Server, now).map(|()| ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ClientCertVerifier for CaVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(leaf, Usage::Client, now).map(|()| ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        key_of(leaf).map(|_| ServerCertVerified::assertion())
    }

    handshake_signatures!();
}

/// The refusal as rustls knows it, so that the peer gets the alert that fits; what no alert fits keeps its own text.
fn refused(error: ChainError, time: UnixTime) -> Error {
    let at = |moment: OffsetDateTime| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(moment.unix_timestamp()).unwrap_or(0)))
    };
    Error::InvalidCertificate(match error {
        ChainError::Expired(end) => CertificateError::ExpiredContext { time, not_after: at(end) },
        ChainError::NotYetValid(begin) => CertificateError::NotValidYetContext { time, not_before: at(begin) },
        // All CAs of the original bear the same name: a foreign one shows by its signature alone.
        ChainError::UnknownIssuer { .. } | ChainError::Signature(SignatureError::Wrong) => {
            CertificateError::UnknownIssuer
        }
        ChainError::Usage(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    })
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<PublicKey, Error> {
    let read = Certificate::from_der(certificate);
    read.map(|read| read.public_key().clone()).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn tls13(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = key_of(certificate)?;
    verify_tls13_signature_with_raw_key(message, &SubjectPublicKeyInfoDer::from(key.spki()), signed, algorithms)
}

/// rustls has no raw-key check for TLS 1.2. There a scheme names the hash alone and not the curve (RFC 8422 5.4), so
/// of the algorithms behind it the one for this kind of key counts.
fn tls12(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let key = key_of(certificate)?;
    let scheme = algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
    let (_, candidates) = scheme.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let fitting = candidates.iter().find(|algorithm| *algorithm.public_key_alg_id() == *key.algorithm_id());
    let algorithm = fitting.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    algorithm
        .verify_signature(key.bits(), message, signed.signature())
        .map(|()| HandshakeSignatureValid::assertion())
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadSignature))
}
