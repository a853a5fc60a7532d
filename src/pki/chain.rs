//! Whether a peer's certificate holds under the one CA.
//!
//! Stock verifiers refuse the X.509 version-1 leaves that the original issued, so the decision is made here, from
//! RFC 5280 section 6 for the one shape of path that exists in this product: a CA certificate and a leaf that it
//! signed itself. What this means, all of it on purpose:
//!
//! - **No intermediates.** A leaf is signed by the CA or refused; further certificates that a peer sends are not
//!   looked at. There is no path building, so its costs and its faults do not exist.
//! - **No host names.** Neither original nor own peers are called by certified names; the dispatcher compares the
//!   certificate with the one it issued, the agent judges the serial.
//! - **No CRLs.** Revocation is by serial ([`super::revoked`]).
//! - **A CA with name constraints is refused**, rather than used with its constraints unevaluated.
//! - A CA certificate is never a peer, and neither is the CA's key.

use std::fmt;

use time::OffsetDateTime;

use super::cert::{self, CertError, Certificate, Parsed, openssl_time};
pub use super::extensions::ExtensionError;
use super::extensions::{self, Extensions, Purposes};
use super::key::PublicKey;
use super::signature;
pub use super::signature::SignatureError;

/// RFC 5280 4.1.2.2: longest serial number, in octets.
const LONGEST_SERIAL: usize = 20;
/// A DER `Name` without any attribute.
const EMPTY_NAME: [u8; 2] = [0x30, 0];

/// What the peer does in this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// It was called: `serverAuth`.
    Server,
    /// It calls: `clientAuth`.
    Client,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "a server",
            Self::Client => "a client",
        })
    }
}

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It cannot be read.
    #[error("the certificate cannot be used")]
    Unreadable(#[from] CertError),
    /// Version 2, or version 1 with extensions.
    #[error("it is of X.509 version {0}, which its content does not allow")]
    Version(u32),
    /// Zero, negative, or longer than 20 octets.
    #[error("its serial number {0} is not a positive number of at most {LONGEST_SERIAL} octets")]
    Serial(String),
    /// No subject.
    #[error("it has no subject")]
    NoSubject,
    /// An extension that forbids its use.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// Not signed by this CA.
    #[error("it was issued by {issuer:?} and not by this CA, {ca:?}: pair again, or correct `ca`")]
    UnknownIssuer {
        /// The issuer it names.
        issuer: String,
        /// The subject of our CA.
        ca: String,
    },
    /// The two statements of the signature algorithm differ (RFC 5280 4.1.1.2).
    #[error("its two signature algorithms differ")]
    AlgorithmsDiffer,
    /// The CA's signature over it.
    #[error("it does not hold the signature of this CA")]
    Signature(#[from] SignatureError),
    /// Over.
    #[error("it expired on {}", openssl_time(*.0))]
    Expired(OffsetDateTime),
    /// Not begun.
    #[error("it is valid from {} only: compare the clocks of both hosts", openssl_time(*.0))]
    NotYetValid(OffsetDateTime),
    /// The CA's own time is over.
    #[error("the CA certificate expired on {}: every certificate under it is void", openssl_time(*.0))]
    CaExpired(OffsetDateTime),
    /// The CA's own time has not begun.
    #[error("the CA certificate is valid from {} only: compare the clocks of both hosts", openssl_time(*.0))]
    CaNotYetValid(OffsetDateTime),
    /// Key usage or extended key usage.
    #[error("it was not issued for the use as {0}")]
    Usage(Usage),
    /// The CA's extended key usage.
    #[error("its CA was not made for certificates of {0}")]
    CaUsage(Usage),
    /// A CA certificate or the CA's key, shown by a peer.
    #[error("it is a certificate for a CA, which no peer may present")]
    IsCa,
    /// A CA certificate without the right to sign certificates.
    #[error("it is not a CA certificate: its extensions do not allow it to sign certificates")]
    NotCa,
    /// A CA with name constraints.
    #[error("the CA certificate has name constraints, which are not supported: use a CA without them")]
    NameConstraints,
}

/// The one CA certificate that peers are checked against.
#[derive(Clone, PartialEq, Eq)]
pub struct TrustAnchor {
    certificate: Certificate,
    purposes: Option<(bool, bool)>,
    key_id: Option<Vec<u8>>,
}

impl TrustAnchor {
    /// Reads a CA file: one certificate, of a CA.
    pub fn from_pem_file(text: &str) -> Result<Self, ChainError> {
        Self::new(Certificate::from_pem_file(text)?)
    }

    /// As [`Self::from_pem_file`], without the proof that the CA has signed its own certificate, which takes longer than
    /// everything else here: for a process that lives for one call. What is trusted is this host's file, and whoever
    /// could put another there could sign it too (RFC 5280 6.2); a damaged one verifies nobody.
    pub fn from_own_pem_file(text: &str) -> Result<Self, ChainError> {
        Self::judge(Certificate::from_pem_file(text)?, |_| Ok(()))
    }

    /// Checks that this is the certificate of a CA. Its dates are judged at each use, not here.
    pub fn new(certificate: Certificate) -> Result<Self, ChainError> {
        let key = certificate.public_key().clone();
        Self::judge(certificate, |parsed| signed_by(parsed, &key))
    }

    /// `prove` is asked whether one that bears its own name as its issuer's has signed itself, where that is not all
    /// there is to know it by.
    fn judge(
        certificate: Certificate,
        prove: impl Fn(&Parsed<'_>) -> Result<(), ChainError>,
    ) -> Result<Self, ChainError> {
        let der = certificate.der().clone();
        let parsed = cert::parse(&der)?;
        let extensions = general(&parsed, &certificate)?;
        let self_issued = parsed.x509.issuer().as_raw() == parsed.x509.subject().as_raw();
        if self_issued && certificate.version() == 1 {
            signed_by(&parsed, certificate.public_key())?;
        } else if self_issued {
            prove(&parsed)?;
        }
        let may_sign = match (certificate.version(), extensions.ca) {
            // Version 1 cannot say that it is a CA; that it signed itself is all there is.
            (1, _) => self_issued,
            (_, ca) => ca == Some(true) && extensions.usage.is_none_or(|usage| usage.sign_certificates),
        };
        if !may_sign {
            return Err(ChainError::NotCa);
        }
        if extensions.name_constraints {
            return Err(ChainError::NameConstraints);
        }
        let purposes = extensions.purposes.map(|Purposes { server, client }| (server, client));
        Ok(Self { certificate, purposes, key_id: extensions.key_id })
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The CA's subject key identifier, where it has one.
    pub(super) fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustAnchor({})", self.certificate.subject_text())
    }
}

/// A leaf that the CA signed, that is valid now, and that may be used as it is. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedLeaf(Certificate);

impl VerifiedLeaf {
    /// What the certificate says.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.0
    }
}

/// Checks a peer's certificate against the one CA, for one usage, at one moment.
pub fn verify(leaf: &[u8], ca: &TrustAnchor, usage: Usage, now: OffsetDateTime) -> Result<VerifiedLeaf, ChainError> {
    judge(leaf, ca, usage, now, Signature::Compute)
}

/// What is known of the CA's signature over a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signature {
    /// Nothing yet.
    Compute,
    /// That it holds: it was computed over these very bytes with this CA's key.
    Known,
}

/// [`verify`], where the signature alone may be known already.
pub(super) fn judge(
    leaf: &[u8],
    ca: &TrustAnchor,
    usage: Usage,
    now: OffsetDateTime,
    signature: Signature,
) -> Result<VerifiedLeaf, ChainError> {
    let parsed = cert::parse(leaf)?;
    let certificate = Certificate::from_parsed(leaf, &parsed)?;
    let anchor = &ca.certificate;
    // The signature first: whatever else is reported is then known to be the CA's word.
    if parsed.x509.issuer().as_raw() != anchor.subject_der() {
        let (issuer, ca) = (certificate.issuer_text().to_owned(), anchor.subject_text().to_owned());
        return Err(ChainError::UnknownIssuer { issuer, ca });
    }
    if signature == Signature::Compute {
        signed_by(&parsed, anchor.public_key())?;
    }
    let extensions = general(&parsed, &certificate)?;
    fit_for(&certificate, &extensions, ca, usage)?;
    in_time(&certificate, anchor, now)?;
    Ok(VerifiedLeaf(certificate))
}

/// What holds for CA and leaf alike.
fn general(parsed: &Parsed<'_>, certificate: &Certificate) -> Result<Extensions, ChainError> {
    let bare = parsed.x509.extensions().is_empty();
    if !(certificate.version() == 3 || certificate.version() == 1 && bare) {
        return Err(ChainError::Version(certificate.version()));
    }
    let serial = parsed.x509.raw_serial();
    let positive = serial.first().is_some_and(|first| *first < 0x80) && serial.iter().any(|octet| *octet != 0);
    if !positive || serial.len() > LONGEST_SERIAL {
        return Err(ChainError::Serial(parsed.x509.raw_serial_as_string()));
    }
    if certificate.subject_der() == EMPTY_NAME {
        return Err(ChainError::NoSubject);
    }
    Ok(extensions::read(&parsed.x509)?)
}

fn signed_by(parsed: &Parsed<'_>, key: &PublicKey) -> Result<(), ChainError> {
    if parsed.inner_algorithm.whole != parsed.outer_algorithm.whole {
        return Err(ChainError::AlgorithmsDiffer);
    }
    Ok(signature::verify(parsed.outer_algorithm, key, parsed.tbs.whole, parsed.signature)?)
}

fn fit_for(
    certificate: &Certificate,
    extensions: &Extensions,
    ca: &TrustAnchor,
    usage: Usage,
) -> Result<(), ChainError> {
    let signs = extensions.usage.is_some_and(|usage| usage.sign_certificates);
    let is_ca = extensions.ca == Some(true) || signs || extensions.name_constraints;
    if is_ca || certificate.public_key() == ca.certificate.public_key() {
        return Err(ChainError::IsCa);
    }
    let allows = |server: bool, client: bool| if usage == Usage::Server { server } else { client };
    let purpose = extensions.purposes.is_none_or(|Purposes { server, client }| allows(server, client));
    if !purpose || !extensions.usage.is_none_or(|usage| usage.handshake) {
        return Err(ChainError::Usage(usage));
    }
    if !ca.purposes.is_none_or(|(server, client)| allows(server, client)) {
        return Err(ChainError::CaUsage(usage));
    }
    Ok(())
}

fn in_time(certificate: &Certificate, ca: &Certificate, now: OffsetDateTime) -> Result<(), ChainError> {
    // Certificates count whole seconds: the last second is valid to its end.
    let now = now.replace_nanosecond(0).unwrap_or(now);
    if now < ca.not_before() {
        return Err(ChainError::CaNotYetValid(ca.not_before()));
    }
    if now > ca.not_after() {
        return Err(ChainError::CaExpired(ca.not_after()));
    }
    if now < certificate.not_before() {
        return Err(ChainError::NotYetValid(certificate.not_before()));
    }
    if now > certificate.not_after() {
        return Err(ChainError::Expired(certificate.not_after()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::Openssl;
    use time::Duration;

    fn now() -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    /// A site of the original and one leaf with these extensions.
    fn site(extensions: &str) -> (Openssl, TrustAnchor, Certificate) {
        let openssl = Openssl::new();
        openssl.original_ca(2048);
        openssl.run("genrsa -out leaf.key 2048");
        openssl.run("req -new -key leaf.key -out leaf.csr -subj '/CN=leaf'");
        let mut how =
            "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 100 -out leaf.crt".to_owned();
        if !extensions.is_empty() {
            openssl.write("extensions", extensions);
            how.push_str(" -extfile extensions");
        }
        openssl.run(&how);
        let ca = TrustAnchor::from_pem_file(&openssl.read("ca.crt")).unwrap();
        let leaf = Certificate::from_pem(&openssl.read("leaf.crt")).unwrap();
        (openssl, ca, leaf)
    }

    fn judge(extensions: &str, usage: Usage) -> Result<VerifiedLeaf, ChainError> {
        let (_openssl, ca, leaf) = site(extensions);
        verify(leaf.der(), &ca, usage, now())
    }

    #[test]
    fn a_version_1_leaf_is_good_for_both_usages_and_within_its_days_only() {
        let (_openssl, ca, leaf) = site("");
        assert_eq!(leaf.version(), 1);
        let at = |moment| verify(leaf.der(), &ca, Usage::Client, moment);
        assert!(verify(leaf.der(), &ca, Usage::Server, now()).is_ok());
        assert!(at(leaf.not_before()).is_ok() && at(leaf.not_after()).is_ok());
        let (begin, end) = (leaf.not_before(), leaf.not_after());
        assert_eq!(at(end + Duration::SECOND), Err(ChainError::Expired(end)));
        assert_eq!(at(begin + Duration::days(4000)), Err(ChainError::CaExpired(ca.certificate().not_after())));
        assert!(matches!(at(begin - Duration::SECOND), Err(ChainError::NotYetValid(_) | ChainError::CaNotYetValid(_))));
    }

    #[test]
    fn purposes_and_key_usage_count_where_they_are_stated() {
        assert!(judge("extendedKeyUsage=serverAuth", Usage::Server).is_ok());
        assert_eq!(judge("extendedKeyUsage=serverAuth", Usage::Client), Err(ChainError::Usage(Usage::Client)));
        assert_eq!(judge("extendedKeyUsage=clientAuth", Usage::Server), Err(ChainError::Usage(Usage::Server)));
        assert!(judge("extendedKeyUsage=anyExtendedKeyUsage", Usage::Client).is_ok());
        assert_eq!(judge("keyUsage=cRLSign", Usage::Server), Err(ChainError::Usage(Usage::Server)));
        assert!(judge("keyUsage=keyEncipherment", Usage::Server).is_ok());
    }

    #[test]
    fn no_ca_and_no_key_of_the_ca_is_a_peer() {
        assert_eq!(judge("basicConstraints=CA:TRUE", Usage::Server), Err(ChainError::IsCa));
        assert_eq!(judge("keyUsage=digitalSignature,keyCertSign", Usage::Server), Err(ChainError::IsCa));
        let (openssl, ca, _) = site("");
        let itself = verify(ca.certificate().der(), &ca, Usage::Server, now());
        assert_eq!(itself, Err(ChainError::IsCa));
        openssl.run("req -new -key ca.key -out same.csr -subj '/CN=leaf'");
        openssl.run("x509 -req -in same.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out same.crt");
        let same = Certificate::from_pem(&openssl.read("same.crt")).unwrap();
        assert_eq!(verify(same.der(), &ca, Usage::Client, now()), Err(ChainError::IsCa));
    }

    #[test]
    fn a_leaf_of_another_ca_is_refused_whether_or_not_the_names_differ() {
        let (_one, ca, _) = site("");
        let (other, _, stranger) = site("");
        let judged = verify(stranger.der(), &ca, Usage::Client, now());
        assert_eq!(judged, Err(ChainError::Signature(SignatureError::Wrong)));
        other.run("req -new -x509 -key ca.key -out other.crt -subj '/CN=Other CA'");
        let renamed = TrustAnchor::from_pem_file(&other.read("other.crt")).unwrap();
        let judged = verify(stranger.der(), &renamed, Usage::Client, now());
        assert!(matches!(judged, Err(ChainError::UnknownIssuer { .. })));
    }

    #[test]
    fn a_leaf_signed_with_sha_1_is_refused_by_name() {
        let (openssl, ca, _) = site("");
        openssl.run("x509 -req -sha1 -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out weak.crt");
        let weak = Certificate::from_pem(&openssl.read("weak.crt")).unwrap();
        let judged = verify(weak.der(), &ca, Usage::Client, now());
        let algorithm = SignatureError::Algorithm("sha1WithRSAEncryption".to_owned());
        assert_eq!(judged, Err(ChainError::Signature(algorithm)));
    }

    #[test]
    fn every_changed_byte_of_a_leaf_is_noticed() {
        let (_openssl, ca, leaf) = site("");
        for index in 0..leaf.der().len() {
            let mut changed = leaf.der().to_vec();
            changed[index] ^= 1;
            assert!(verify(&changed, &ca, Usage::Client, now()).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_leaf_is_no_ca() {
        let (openssl, _, _) = site("");
        for read in [TrustAnchor::from_pem_file, TrustAnchor::from_own_pem_file] {
            assert_eq!(read(&openssl.read("leaf.crt")), Err(ChainError::NotCa));
        }
    }

    #[test]
    fn a_ca_that_did_not_sign_itself_is_refused_where_that_is_proven_or_all_there_is() {
        let (openssl, ca, leaf) = site("");
        let der = ca.certificate().der();
        let mut changed = der.to_vec();
        *changed.last_mut().unwrap() ^= 1;
        let text = crate::pki::pem::encode("CERTIFICATE", &changed);
        let wrong = Err(ChainError::Signature(SignatureError::Wrong));
        assert_eq!(TrustAnchor::from_pem_file(&text), wrong);
        // Its key is what it was.
        let own = TrustAnchor::from_own_pem_file(&text).unwrap();
        assert!(verify(leaf.der(), &own, Usage::Client, now()).is_ok());
        assert_eq!(TrustAnchor::from_own_pem_file(&openssl.read("ca.crt")).unwrap(), ca);
    }
}
