//! Certificate requests (PKCS #10, RFC 2986): ours, and the judgement of those that arrive.
//!
//! **Invariant:** every check reads the DER, never a printed form of it. A subject may hold any text, also one that
//! looks like a key length, an algorithm or a second subject.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::cert::only_common_name;
use super::der;
use super::key::{KeyError, KeyKind, PrivateKey, PublicKey};
use super::pem::{self, PemError};
use super::signature::{self, SignatureError};
use crate::wire::name::{AgentName, NameError};

/// Most characters of a request's PEM text.
pub const LONGEST: usize = 10_240;
const LABEL: &str = "CERTIFICATE REQUEST";

/// Whose request it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedName<'a> {
    /// Anyone's: pairing, where an operator looks at the name.
    Any,
    /// That of the holder of this name: renewal.
    Exactly(&'a str),
}

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too much text.
    #[error("CSR exceeds maximum size of {LONGEST} characters")]
    TooLong,
    /// Not exactly one PEM block.
    #[error("Invalid CSR format")]
    Pem(#[from] PemError),
    /// Not one well-formed request.
    #[error("Invalid CSR format: it is not one well-formed PKCS #10 request")]
    Damaged,
    /// An RSA key that is too short or too long.
    #[error("CSR public key too small (need >= 2048 bits) or too large")]
    KeyLength(#[source] KeyError),
    /// A key of an unknown kind.
    #[error("CSR public key is not acceptable: use RSA, ECDSA P-256 or P-384, or Ed25519")]
    Key(#[source] KeyError),
    /// Signed with a weak hash, or in a way that is unknown.
    #[error("CSR uses a weak or unrecognised signature algorithm ({0})")]
    Algorithm(String),
    /// Not signed with the key it asks for.
    #[error("CSR is not signed with its own key")]
    Signature,
    /// No common name, or more than one.
    #[error("CSR subject must have exactly one common name that is text")]
    CommonName,
    /// A common name that is no host name.
    #[error("CSR subject CN is not a usable name")]
    Name(#[source] NameError),
    /// Somebody else's.
    #[error("CSR subject CN does not match the expected identity: it is {found:?}, expected {expected:?}")]
    OtherName {
        /// The name in the request.
        found: String,
        /// The name it had to be.
        expected: String,
    },
    /// A request of our own could not be made.
    #[error("the CSR could not be made")]
    Make(#[source] rcgen::Error),
}

/// A request that passed every check: whoever sent it holds the key, and the name is fit for a certificate.
///
/// The name follows [`AgentName`], so at most 240 characters. X.520's bound of 64 is not applied: fully qualified
/// host names are longer, and neither OpenSSL nor rustls enforces it when it reads.
#[derive(Clone, Debug)]
pub struct CheckedCsr {
    common_name: AgentName,
    public_key: PublicKey,
}

impl CheckedCsr {
    /// The common name.
    #[must_use]
    pub const fn common_name(&self) -> &AgentName {
        &self.common_name
    }

    /// The key that a certificate is wanted for.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// A request for `key` under this common name, as PEM text. Nothing but the name is asked for.
pub fn make(key: &PrivateKey, common_name: &AgentName) -> Result<String, CsrError> {
    let mut wanted = rcgen::CertificateParams::default();
    wanted.distinguished_name = rcgen::DistinguishedName::new();
    wanted.distinguished_name.push(rcgen::DnType::CommonName, common_name.as_str());
    let request = wanted.serialize_request(key.pair()).map_err(CsrError::Make)?;
    Ok(pem::encode(LABEL, request.der()))
}

/// Judges a request as it arrived. Extensions that it asks for are passed over: the CA decides what it issues.
pub fn check(text: &str, expected: ExpectedName<'_>) -> Result<CheckedCsr, CsrError> {
    if text.chars().count() > LONGEST {
        return Err(CsrError::TooLong);
    }
    let bytes = pem::strict(text, LABEL)?;
    if !der::well_formed(&bytes) {
        return Err(CsrError::Damaged);
    }
    let (_, request) = X509CertificationRequest::from_der(&bytes).map_err(|_| CsrError::Damaged)?;
    let info = &request.certification_request_info;
    let public_key = PublicKey::from_spki(info.subject_pki.raw).map_err(key_error)?;
    if public_key.kind() == KeyKind::EcdsaP521 {
        // Not every TLS peer can check its signatures.
        return Err(CsrError::Key(KeyError::UnknownKind));
    }
    signed(&bytes, &public_key)?;
    let name = only_common_name(&info.subject).ok_or(CsrError::CommonName)?;
    let common_name = AgentName::parse(&name).map_err(CsrError::Name)?;
    match expected {
        ExpectedName::Exactly(wanted) if wanted != name => {
            Err(CsrError::OtherName { found: name, expected: wanted.to_owned() })
        }
        _ => Ok(CheckedCsr { common_name, public_key }),
    }
}

fn signed(request: &[u8], key: &PublicKey) -> Result<(), CsrError> {
    let outer = der::only(request).and_then(|outer| der::children(outer.content)).ok_or(CsrError::Damaged)?;
    let [info, algorithm, signature] = *outer.as_slice() else { return Err(CsrError::Damaged) };
    // RFC 2986 4.1: version, subject, key, attributes. Nothing else may hide behind them.
    let fields = der::children(info.content).ok_or(CsrError::Damaged)?;
    let [_, _, _, attributes] = fields.as_slice() else { return Err(CsrError::Damaged) };
    if attributes.tag != 0xa0 {
        return Err(CsrError::Damaged);
    }
    signature::verify(algorithm, key, info.whole, signature).map_err(|error| match error {
        SignatureError::Algorithm(name) => CsrError::Algorithm(name),
        SignatureError::Wrong => CsrError::Signature,
    })
}

fn key_error(error: KeyError) -> CsrError {
    if matches!(error, KeyError::RsaLength(_)) { CsrError::KeyLength(error) } else { CsrError::Key(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::key;
    use crate::pki::testing::Openssl;

    fn request(openssl: &Openssl, key: &str, subject: &str, more: &str) -> String {
        openssl.run(&format!("req -new -key {key} -out x.csr -subj '{subject}' {more}"));
        openssl.read("x.csr")
    }

    fn with_key(arguments: &str) -> Openssl {
        let openssl = Openssl::new();
        openssl.run(&format!("genpkey {arguments} -out key.pem"));
        openssl
    }

    #[test]
    fn our_own_requests_pass_and_openssl_agrees() {
        let name = AgentName::parse("web-01.example.com").unwrap();
        for key in [key::generate().unwrap(), key::generate_rsa().unwrap()] {
            let text = make(&key, &name).unwrap();
            let checked = check(&text, ExpectedName::Exactly("web-01.example.com")).unwrap();
            assert_eq!(checked.common_name(), &name);
            assert_eq!(checked.public_key(), key.public());
            let openssl = Openssl::new();
            openssl.write("x.csr", &text);
            openssl.run("req -in x.csr -noout -verify");
            assert!(openssl.run("req -in x.csr -noout -text").contains("Version: 1 (0x0)"));
        }
    }

    #[test]
    fn requests_of_every_supported_kind_of_key_pass() {
        for arguments in [
            "-algorithm rsa -pkeyopt rsa_keygen_bits:2048",
            "-algorithm ec -pkeyopt ec_paramgen_curve:P-256",
            "-algorithm ec -pkeyopt ec_paramgen_curve:P-384",
            "-algorithm ed25519",
        ] {
            let openssl = with_key(arguments);
            let text = request(&openssl, "key.pem", "/CN=a.example", "");
            check(&text, ExpectedName::Any).unwrap();
            check(&text.replace('\n', "\r\n"), ExpectedName::Any).unwrap();
        }
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        for arguments in [
            "-algorithm rsa -pkeyopt rsa_keygen_bits:1024",
            "-algorithm ec -pkeyopt ec_paramgen_curve:secp256k1",
            "-algorithm ec -pkeyopt ec_paramgen_curve:P-521",
            "-algorithm ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
        ] {
            let openssl = with_key(arguments);
            let text = request(&openssl, "key.pem", "/CN=a.example", "");
            let judged = check(&text, ExpectedName::Any);
            assert!(matches!(judged, Err(CsrError::Key(_) | CsrError::KeyLength(_))), "{arguments}");
        }
    }

    #[test]
    fn weak_hashes_are_refused_by_their_number() {
        let openssl = with_key("-algorithm rsa -pkeyopt rsa_keygen_bits:2048");
        for hash in ["-sha1", "-md5"] {
            let text = request(&openssl, "key.pem", "/CN=a.example", hash);
            let error = check(&text, ExpectedName::Any).unwrap_err();
            assert!(matches!(error, CsrError::Algorithm(_)), "{hash}: {error}");
        }
        for hash in ["-sha384", "-sha512", "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32 -sha256"] {
            check(&request(&openssl, "key.pem", "/CN=a.example", hash), ExpectedName::Any).unwrap();
        }
    }

    #[test]
    fn a_subject_that_looks_like_a_key_length_hides_no_short_key() {
        let openssl = with_key("-algorithm rsa -pkeyopt rsa_keygen_bits:1024");
        let text = request(&openssl, "key.pem", "/OU=Public-Key: (4096 bit)/CN=a.example", "");
        assert_eq!(check(&text, ExpectedName::Any).unwrap_err(), CsrError::KeyLength(KeyError::RsaLength(1024)));
        let text = request(&openssl, "key.pem", "/CN=Public-Key: (4096 bit)", "");
        assert_eq!(check(&text, ExpectedName::Any).unwrap_err(), CsrError::KeyLength(KeyError::RsaLength(1024)));
    }

    #[test]
    fn a_subject_that_looks_like_an_algorithm_hides_no_weak_hash() {
        let openssl = with_key("-algorithm rsa -pkeyopt rsa_keygen_bits:2048");
        let text = request(&openssl, "key.pem", "/OU=Signature Algorithm: sha256x/CN=a.example", "-sha1");
        assert!(matches!(check(&text, ExpectedName::Any), Err(CsrError::Algorithm(_))));
    }

    #[test]
    fn the_name_is_the_one_common_name_and_nothing_that_looks_like_it() {
        let openssl = with_key("-algorithm ec -pkeyopt ec_paramgen_curve:P-256");
        let disguised = request(&openssl, "key.pem", "/O=x CN = victim, CN=victim/CN=attacker", "");
        let error = check(&disguised, ExpectedName::Exactly("victim")).unwrap_err();
        assert_eq!(error, CsrError::OtherName { found: "attacker".into(), expected: "victim".into() });
        let two = request(&openssl, "key.pem", "/CN=victim/CN=attacker", "");
        assert_eq!(check(&two, ExpectedName::Any).unwrap_err(), CsrError::CommonName);
        let together = request(&openssl, "key.pem", "/CN=victim+CN=attacker", "-multivalue-rdn");
        assert_eq!(check(&together, ExpectedName::Any).unwrap_err(), CsrError::CommonName);
        let none = request(&openssl, "key.pem", "/O=nobody", "");
        assert_eq!(check(&none, ExpectedName::Any).unwrap_err(), CsrError::CommonName);
        for subject in ["/CN=..\\/etc", "/CN=-x", "/CN=a b", "/CN=B\u{fc}ro"] {
            let text = request(&openssl, "key.pem", subject, "-utf8");
            assert!(matches!(check(&text, ExpectedName::Any), Err(CsrError::Name(_))), "{subject}");
        }
    }

    #[test]
    fn a_request_that_its_key_did_not_sign_is_refused() {
        let openssl = with_key("-algorithm ec -pkeyopt ec_paramgen_curve:P-256");
        let text = request(&openssl, "key.pem", "/CN=a.example", "");
        let mut der = pem::strict(&text, LABEL).unwrap();
        let at = der.windows(9).position(|bytes| bytes == b"a.example").unwrap();
        der[at] = b'b';
        let error = check(&pem::encode(LABEL, &der), ExpectedName::Any).unwrap_err();
        assert_eq!(error, CsrError::Signature);
    }

    #[test]
    fn nothing_may_stand_before_behind_or_inside() {
        let openssl = with_key("-algorithm ec -pkeyopt ec_paramgen_curve:P-256");
        let text = request(&openssl, "key.pem", "/CN=a.example", "");
        for changed in [format!("\n{text}"), format!("{text}junk"), format!("{text}{text}"), "x".to_owned()] {
            assert!(matches!(check(&changed, ExpectedName::Any), Err(CsrError::Pem(_))));
        }
        check(&format!("{text}\r\n \n"), ExpectedName::Any).unwrap();
        let mut der = pem::strict(&text, LABEL).unwrap();
        der.push(0);
        assert_eq!(check(&pem::encode(LABEL, &der), ExpectedName::Any).unwrap_err(), CsrError::Damaged);
        let long = format!("{text}{}", " ".repeat(LONGEST));
        assert_eq!(check(&long, ExpectedName::Any).unwrap_err(), CsrError::TooLong);
        let new = text.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST");
        assert!(matches!(check(&new, ExpectedName::Any), Err(CsrError::Pem(_))));
    }

    #[test]
    fn requested_extensions_do_not_disturb() {
        let openssl = with_key("-algorithm ec -pkeyopt ec_paramgen_curve:P-256");
        let text = request(
            &openssl,
            "key.pem",
            "/CN=a.example",
            "-addext basicConstraints=CA:TRUE -addext subjectAltName=DNS:victim",
        );
        assert_eq!(check(&text, ExpectedName::Any).unwrap().common_name().as_str(), "a.example");
    }
}
