//! The private CA: made once, or taken over from the original, and the only signer of agents and dispatchers.

use time::{Duration, OffsetDateTime};

use super::cert::{CertError, Certificate};
use super::chain::{ChainError, TrustAnchor};
use super::csr::CheckedCsr;
use super::issue::{self, Leaf};
use super::key::{self, KeyError, PrivateKey};
use super::serial::FreshSerial;

/// The name a new CA gets unless told otherwise; the original's name too.
pub const DEFAULT_NAME: &str = "ctrl-exec CA";
/// Validity of a new CA, in days.
pub const DEFAULT_DAYS: u32 = 3650;
/// The common name in every dispatcher's certificate, the original's too. No agent may have it: agents and dispatchers
/// are of one CA, and this name is what tells them apart while an agent is paired.
pub const DISPATCHER_CN: &str = "ctrl-exec-dispatcher";
/// How far before `now` a certificate's validity begins, in minutes: hosts whose clocks run behind accept it at once.
const CLOCK_SKEW_MINUTES: i64 = 5;

/// A CA that cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The private key's text.
    #[error("the CA key cannot be used")]
    Key(#[source] KeyError),
    /// The certificate's text.
    #[error("the CA certificate cannot be used")]
    Certificate(#[source] ChainError),
    /// They do not belong together.
    #[error("the CA key does not belong to the CA certificate: put back the pair that was made together")]
    Mismatch,
    /// A name outside the alphabet.
    #[error("the CA name {0:?} is not valid: use letters, digits, '_', blanks, '-' and '.', at most 64 of them")]
    Name(String),
    /// No days, or so many that the date does not exist.
    #[error("a validity of {0} days is not possible: give a number of days between 1 and 36500")]
    Days(u32),
    /// The CA certificate could not be made.
    #[error("the CA certificate could not be made")]
    Make(#[source] rcgen::Error),
    /// A leaf that was issued could not be read back.
    #[error("the issued certificate cannot be read back")]
    Issued(#[source] CertError),
}

/// The CA's key and certificate, known to belong together.
#[derive(Debug)]
pub struct Ca {
    key: PrivateKey,
    anchor: TrustAnchor,
}

impl Ca {
    /// A new CA with an ECDSA P-384 key: self-signed, version 3, valid from shortly before `now` for `days`.
    pub fn create(name: &str, days: u32, serial: &FreshSerial, now: OffsetDateTime) -> Result<Self, CaError> {
        let allowed = |c: char| c.is_alphanumeric() || "_ -.".contains(c);
        if !(1..=64).contains(&name.chars().count()) || !name.chars().all(allowed) {
            return Err(CaError::Name(name.chars().take(80).collect()));
        }
        let key = key::generate_p384().map_err(CaError::Key)?;
        let (not_before, not_after) = validity(days, now)?;
        let mut wanted = rcgen::CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        wanted.distinguished_name.push(rcgen::DnType::CommonName, name);
        wanted.serial_number = Some(rcgen::SerialNumber::from_slice(serial.octets()));
        wanted.not_before = not_before;
        wanted.not_after = not_after;
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        wanted.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let made = wanted.self_signed(key.pair()).map_err(CaError::Make)?;
        let certificate = Certificate::from_der(made.der()).map_err(CaError::Issued)?;
        let anchor = TrustAnchor::new(certificate).map_err(CaError::Certificate)?;
        Ok(Self { key, anchor })
    }

    /// Takes over an existing CA: any key the original's tools made (RSA or elliptic curve; PKCS#1, PKCS#8 or SEC 1).
    pub fn load(key_pem: &str, certificate_pem: &str) -> Result<Self, CaError> {
        let key = PrivateKey::from_pem(key_pem).map_err(CaError::Key)?;
        let anchor = TrustAnchor::from_pem_file(certificate_pem).map_err(CaError::Certificate)?;
        if key.public() != anchor.certificate().public_key() {
            return Err(CaError::Mismatch);
        }
        Ok(Self { key, anchor })
    }

    /// The CA as others check against it.
    #[must_use]
    pub const fn anchor(&self) -> &TrustAnchor {
        &self.anchor
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        self.anchor.certificate()
    }

    /// The CA key's PEM text: for a file that only root reads.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// Issues an agent's certificate: server and client purposes, the common name as its host name.
    pub fn sign_agent(
        &self,
        request: &CheckedCsr,
        serial: &FreshSerial,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<Certificate, CaError> {
        self.sign(request, serial, validity(days, now)?, true)
    }

    /// Issues a dispatcher's certificate: the same, but its common name is no host's.
    pub fn sign_dispatcher(
        &self,
        request: &CheckedCsr,
        serial: &FreshSerial,
        days: u32,
        now: OffsetDateTime,
    ) -> Result<Certificate, CaError> {
        self.sign(request, serial, validity(days, now)?, false)
    }

    fn sign(
        &self,
        request: &CheckedCsr,
        serial: &FreshSerial,
        (not_before, not_after): (OffsetDateTime, OffsetDateTime),
        host: bool,
    ) -> Result<Certificate, CaError> {
        let (common_name, public_key) = (request.common_name(), request.public_key());
        let leaf = Leaf { common_name, public_key, serial, not_before, not_after, host };
        let der = issue::issue(&leaf, &self.anchor, &self.key).map_err(CaError::Key)?;
        Certificate::from_der(&der).map_err(CaError::Issued)
    }
}

/// First and last moment of `days` from now, in whole seconds, as certificates hold them.
fn validity(days: u32, now: OffsetDateTime) -> Result<(OffsetDateTime, OffsetDateTime), CaError> {
    let whole = now.replace_nanosecond(0).unwrap_or(now);
    let end = Some(days).filter(|days| (1..=36_500).contains(days)).map(|days| Duration::days(i64::from(days)));
    let end = end.and_then(|length| whole.checked_add(length)).ok_or(CaError::Days(days))?;
    Ok((whole - Duration::minutes(CLOCK_SKEW_MINUTES), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::chain::{self, Usage};
    use crate::pki::csr::{self, ExpectedName};
    use crate::pki::serial;
    use crate::pki::testing::Openssl;
    use crate::wire::name::AgentName;

    fn request(key: &PrivateKey, name: &str) -> CheckedCsr {
        csr::check(&csr::make(key, &AgentName::parse(name).unwrap()).unwrap(), ExpectedName::Any).unwrap()
    }

    fn new_ca() -> Ca {
        Ca::create(DEFAULT_NAME, DEFAULT_DAYS, &serial::fresh().unwrap(), OffsetDateTime::now_utc()).unwrap()
    }

    /// Issues under `ca` and lets openssl judge the result for both purposes.
    fn openssl_accepts(ca: &Ca, key: &PrivateKey, how: &str) {
        let now = OffsetDateTime::now_utc();
        let openssl = Openssl::new();
        openssl.write("ca.crt", &ca.certificate().to_pem());
        let fresh = serial::fresh().unwrap();
        let leaf = ca.sign_agent(&request(key, "web-01.example.com"), &fresh, 365, now).unwrap();
        assert_eq!(leaf.serial(), &fresh.serial());
        openssl.write("leaf.crt", &leaf.to_pem());
        for purpose in ["sslserver", "sslclient"] {
            openssl.run(&format!("verify {how} -CAfile ca.crt -purpose {purpose} leaf.crt"));
        }
        for usage in [Usage::Server, Usage::Client] {
            let verified = chain::verify(leaf.der(), ca.anchor(), usage, now).unwrap();
            assert_eq!(verified.certificate().common_name(), Some("web-01.example.com"));
        }
    }

    #[test]
    fn a_new_ca_signs_what_openssl_accepts() {
        let ca = new_ca();
        for key in [key::generate().unwrap(), key::generate_rsa().unwrap()] {
            openssl_accepts(&ca, &key, "-x509_strict");
        }
        let again = Ca::load(&ca.key_pem(), &ca.certificate().to_pem()).unwrap();
        openssl_accepts(&again, &key::generate().unwrap(), "-x509_strict");
    }

    #[test]
    fn a_new_ca_and_its_leaves_say_what_they_are_for() {
        let ca = new_ca();
        let openssl = Openssl::new();
        openssl.write("ca.crt", &ca.certificate().to_pem());
        let text = openssl.run("x509 -in ca.crt -noout -text");
        for wanted in ["Version: 3", "CA:TRUE", "Certificate Sign, CRL Sign", "Subject Key Identifier", "secp384r1"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let (now, fresh) = (OffsetDateTime::now_utc(), serial::fresh().unwrap());
        let leaf = ca.sign_agent(&request(&key::generate().unwrap(), "a.example"), &fresh, 10, now).unwrap();
        openssl.write("leaf.crt", &leaf.to_pem());
        let text = openssl.run("x509 -in leaf.crt -noout -text");
        for wanted in [
            "Version: 3",
            "CA:FALSE",
            "Digital Signature",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "DNS:a.example",
            "Authority Key Identifier",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let fresh = serial::fresh().unwrap();
        let key = key::generate().unwrap();
        let leaf = ca.sign_dispatcher(&request(&key, "ctrl-exec-dispatcher"), &fresh, 10, now).unwrap();
        openssl.write("dispatcher.crt", &leaf.to_pem());
        assert!(!openssl.run("x509 -in dispatcher.crt -noout -text").contains("DNS:"));
    }

    #[test]
    fn the_originals_ca_signs_on_in_every_form_of_key() {
        let openssl = Openssl::new();
        openssl.original_ca(4096);
        let ca = Ca::load(&openssl.read("ca.key"), &openssl.read("ca.crt")).unwrap();
        openssl_accepts(&ca, &key::generate().unwrap(), "");
        openssl_accepts(&ca, &key::generate_rsa().unwrap(), "");
        openssl.run("rsa -in ca.key -traditional -out pkcs1.key");
        openssl_accepts(
            &Ca::load(&openssl.read("pkcs1.key"), &openssl.read("ca.crt")).unwrap(),
            &key::generate().unwrap(),
            "",
        );
    }

    #[test]
    fn a_ca_with_an_unusual_name_is_repeated_byte_for_byte() {
        for subject in ["/DC=com/DC=example/O=A & B/OU=one/OU=two/CN=CA", "/C=DE/O=B\u{fc}ro/CN=x+OU=y"] {
            let openssl = Openssl::new();
            openssl.run("ecparam -name prime256v1 -genkey -out ca.key");
            openssl.run(&format!("req -new -x509 -utf8 -multivalue-rdn -key ca.key -out ca.crt -subj '{subject}'"));
            let ca = Ca::load(&openssl.read("ca.key"), &openssl.read("ca.crt")).unwrap();
            openssl_accepts(&ca, &key::generate().unwrap(), "");
        }
    }

    #[test]
    fn what_is_wrong_with_a_ca_is_named() {
        let openssl = Openssl::new();
        openssl.original_ca(2048);
        openssl.original_leaf("leaf", true);
        let (key, certificate) = (openssl.read("ca.key"), openssl.read("ca.crt"));
        let other = openssl.read("leaf.key");
        assert!(matches!(Ca::load(&other, &certificate), Err(CaError::Mismatch)));
        let not_ca = Ca::load(&other, &openssl.read("leaf.crt"));
        assert!(matches!(not_ca, Err(CaError::Certificate(ChainError::NotCa))), "{not_ca:?}");
        assert!(matches!(Ca::load("", &certificate), Err(CaError::Key(KeyError::Absent))));
        assert!(matches!(Ca::load(&key, &key), Err(CaError::Certificate(ChainError::Unreadable(_)))));
    }

    #[test]
    fn a_version_1_ca_that_signed_itself_is_taken_over() {
        let openssl = Openssl::new();
        openssl.run("genrsa -out ca.key 2048");
        openssl.run("req -new -key ca.key -out ca.csr -subj '/CN=old CA'");
        openssl.run("x509 -req -in ca.csr -signkey ca.key -days 100 -out ca.crt");
        let ca = Ca::load(&openssl.read("ca.key"), &openssl.read("ca.crt")).unwrap();
        assert_eq!(ca.certificate().version(), 1);
        let (now, fresh) = (OffsetDateTime::now_utc(), serial::fresh().unwrap());
        let leaf = ca.sign_agent(&request(&key::generate().unwrap(), "a"), &fresh, 10, now).unwrap();
        openssl.write("leaf.crt", &leaf.to_pem());
        openssl.run("verify -CAfile ca.crt leaf.crt");
    }

    #[test]
    fn validity_begins_a_little_early_and_ends_after_the_days_asked_for() {
        let now = time::macros::datetime!(2026-11-22 12:00:00.5 UTC);
        let (begin, end) = validity(365, now).unwrap();
        assert_eq!(begin, time::macros::datetime!(2026-11-22 11:55:00 UTC));
        assert_eq!(end, time::macros::datetime!(2027-11-22 12:00:00 UTC));
        assert!(matches!(validity(0, now), Err(CaError::Days(0))));
        assert!(matches!(validity(36_501, now), Err(CaError::Days(_))));
    }

    #[test]
    fn a_name_for_a_ca_keeps_to_its_alphabet() {
        let made = |name: &str| Ca::create(name, 1, &serial::fresh().unwrap(), OffsetDateTime::now_utc());
        assert!(made("ctrl-exec CA 2.0").is_ok());
        for name in ["", "a/b", "a\nb", "a=b", &"x".repeat(65)] {
            assert!(matches!(made(name), Err(CaError::Name(_))), "{name:?}");
        }
    }
}
