//! One table of the signature algorithms that certificates and requests may be signed with.
//!
//! The whole `AlgorithmIdentifier` is compared, parameters included, and never a name in a text: MD5 and SHA-1 are
//! not on the table, RSA-PSS is there with its hash as MGF1 hash and salt length alone (RFC 8017, RFC 5758, RFC 8410).

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::alg_id;
use x509_parser::objects::{oid_registry, oid2sn};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AlgorithmIdentifier;

use super::der::Element;
use super::key::{KeyKind, PublicKey};

/// A signature that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not on the table, or not with this kind of key.
    #[error("its signature algorithm {0} is too weak or not supported")]
    Algorithm(String),
    /// Not made by that key over these bytes.
    #[error("its signature is wrong")]
    Wrong,
}

/// Checks `signature` over `message`. `algorithm` is the `AlgorithmIdentifier` element, `signature` the BIT STRING.
pub(super) fn verify(
    algorithm: Element<'_>,
    key: &PublicKey,
    message: &[u8],
    signature: Element<'_>,
) -> Result<(), SignatureError> {
    let verifier =
        find(algorithm.content, key.kind()).ok_or_else(|| SignatureError::Algorithm(name(algorithm.whole)))?;
    let [0, bytes @ ..] = signature.content else { return Err(SignatureError::Wrong) };
    UnparsedPublicKey::new(verifier, key.bits()).verify(message, bytes).map_err(|_| SignatureError::Wrong)
}

fn find(id: &[u8], key: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
    match key {
        KeyKind::Rsa(_) => rsa(id),
        KeyKind::Ed25519 => (id == alg_id::ED25519.as_ref()).then_some(&signature::ED25519 as _),
        curve => ecdsa(id, curve),
    }
}

fn rsa(id: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    // RFC 4055 5: the parameters of PKCS#1 v1.5 are NULL; some signers leave them out.
    const NULL: [u8; 2] = [5, 0];
    let is = |wanted: &[u8]| id == wanted || wanted.strip_suffix(&NULL) == Some(id);
    let table: [(&[u8], &'static dyn VerificationAlgorithm); 6] = [
        (&alg_id::RSA_PKCS1_SHA256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (&alg_id::RSA_PKCS1_SHA384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (&alg_id::RSA_PKCS1_SHA512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (&alg_id::RSA_PSS_SHA256, &signature::RSA_PSS_2048_8192_SHA256),
        (&alg_id::RSA_PSS_SHA384, &signature::RSA_PSS_2048_8192_SHA384),
        (&alg_id::RSA_PSS_SHA512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    table.into_iter().find(|(wanted, _)| is(wanted)).map(|(_, found)| found)
}

fn ecdsa(id: &[u8], curve: KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
    let hash = [&alg_id::ECDSA_SHA256, &alg_id::ECDSA_SHA384, &alg_id::ECDSA_SHA512]
        .iter()
        .position(|wanted| wanted.as_ref() == id)?;
    Some(match (curve, hash) {
        (KeyKind::EcdsaP256, 0) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::EcdsaP256, 1) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::EcdsaP256, _) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::EcdsaP384, 0) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::EcdsaP384, 1) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::EcdsaP384, _) => &signature::ECDSA_P384_SHA512_ASN1,
        (KeyKind::EcdsaP521, 0) => &signature::ECDSA_P521_SHA256_ASN1,
        (KeyKind::EcdsaP521, 1) => &signature::ECDSA_P521_SHA384_ASN1,
        (KeyKind::EcdsaP521, _) => &signature::ECDSA_P521_SHA512_ASN1,
        _ => return None,
    })
}

/// What the algorithm is called, or its number.
fn name(whole: &[u8]) -> String {
    let Ok((_, id)) = AlgorithmIdentifier::from_der(whole) else { return "(unreadable)".to_owned() };
    oid2sn(&id.algorithm, oid_registry()).map_or_else(|_| id.algorithm.to_id_string(), ToOwned::to_owned)
}

/// The content of the `AlgorithmIdentifier` that [`super::key::PrivateKey::sign`] signs with.
pub(super) fn of_key(kind: KeyKind) -> &'static [u8] {
    let id = match kind {
        KeyKind::Rsa(_) => &alg_id::RSA_PKCS1_SHA256,
        KeyKind::EcdsaP256 => &alg_id::ECDSA_SHA256,
        KeyKind::EcdsaP384 => &alg_id::ECDSA_SHA384,
        KeyKind::EcdsaP521 => &alg_id::ECDSA_SHA512,
        KeyKind::Ed25519 => &alg_id::ED25519,
    };
    id.as_ref()
}
