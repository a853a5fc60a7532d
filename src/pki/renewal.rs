//! Renewal: when a certificate is due, and whether a new one may take the place of the old.

use time::{Duration, OffsetDateTime};

use super::cert::{CertError, Certificate};
use super::chain::{self, ChainError, TrustAnchor, Usage};
use super::key::PublicKey;

/// Why a renewed certificate is not taken. The texts of the first three are what the original reports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// Not a certificate, or more than one.
    #[error("renewed cert does not verify against the agent CA")]
    Unreadable(#[source] CertError),
    /// It does not hold under the CA.
    #[error("renewed cert does not verify against the agent CA")]
    Chain(#[source] ChainError),
    /// Another key's.
    #[error("renewed cert public key does not match the agent key")]
    OtherKey,
    /// Another name's.
    #[error("renewed cert is for {found:?}, the present one for {present:?}")]
    OtherName {
        /// The new common name.
        found: String,
        /// The present common name.
        present: String,
    },
    /// No later end than the one at hand.
    #[error("renewed cert is not newer: it ends on {found}, the present one on {present}")]
    NotNewer {
        /// End of the new one.
        found: String,
        /// End of the present one.
        present: String,
    },
    /// The same serial again.
    #[error("renewed cert has the serial of the present one")]
    SameSerial,
}

/// Judges the certificate that a renewal brought, against the key, the CA and the certificate at hand.
pub fn check(
    renewed_pem: &str,
    key: &PublicKey,
    ca: &TrustAnchor,
    present: &Certificate,
    now: OffsetDateTime,
) -> Result<Certificate, RenewalError> {
    let renewed = Certificate::from_pem(renewed_pem).map_err(RenewalError::Unreadable)?;
    fits(&renewed, key, ca, now)?;
    // Two that have no one common name are not of one name.
    if renewed.common_name().is_none() || renewed.common_name() != present.common_name() {
        let name = |certificate: &Certificate| certificate.subject_text().to_owned();
        return Err(RenewalError::OtherName { found: name(&renewed), present: name(present) });
    }
    if renewed.serial() == present.serial() {
        return Err(RenewalError::SameSerial);
    }
    if renewed.not_after() <= present.not_after() {
        return Err(RenewalError::NotNewer { found: renewed.expiry_text(), present: present.expiry_text() });
    }
    Ok(renewed)
}

/// Whether certificate, key and CA belong together and hold now: before a pairing or a promotion writes them.
pub fn fits(
    certificate: &Certificate,
    key: &PublicKey,
    ca: &TrustAnchor,
    now: OffsetDateTime,
) -> Result<(), RenewalError> {
    for usage in [Usage::Server, Usage::Client] {
        chain::verify(certificate.der(), ca, usage, now).map_err(RenewalError::Chain)?;
    }
    if certificate.public_key() == key { Ok(()) } else { Err(RenewalError::OtherKey) }
}

/// Whether less than half of `days` remain until `not_after`: the rule by which agents' certificates are renewed.
#[must_use]
pub fn is_due(not_after: OffsetDateTime, days: u32, now: OffsetDateTime) -> bool {
    not_after - now < Duration::days(i64::from(days)) / 2
}

/// Whole days from now until `not_after`, rounded down; negative once it is over.
#[must_use]
pub fn days_left(not_after: OffsetDateTime, now: OffsetDateTime) -> i64 {
    (not_after - now).whole_seconds().div_euclid(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::ca::{Ca, DEFAULT_NAME};
    use crate::pki::csr::{self, ExpectedName};
    use crate::pki::key::{self, PrivateKey};
    use crate::pki::serial;
    use crate::wire::name::AgentName;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-11-22 12:00 UTC);

    struct Site {
        ca: Ca,
        key: PrivateKey,
    }

    impl Site {
        fn new() -> Self {
            let ca = Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), NOW).unwrap();
            Self { ca, key: key::generate().unwrap() }
        }

        fn issue(&self, key: &PrivateKey, name: &str, days: u32) -> Certificate {
            let request = csr::make(key, &AgentName::parse(name).unwrap()).unwrap();
            let request = csr::check(&request, ExpectedName::Any).unwrap();
            self.ca.sign_agent(&request, &serial::fresh().unwrap(), days, NOW).unwrap()
        }

        fn check(&self, renewed: &Certificate, present: &Certificate) -> Result<Certificate, RenewalError> {
            check(&renewed.to_pem(), self.key.public(), self.ca.anchor(), present, NOW)
        }
    }

    #[test]
    fn a_later_certificate_for_the_same_key_and_name_is_taken() {
        let site = Site::new();
        let (present, renewed) = (site.issue(&site.key, "a", 100), site.issue(&site.key, "a", 365));
        assert_eq!(site.check(&renewed, &present), Ok(renewed));
    }

    #[test]
    fn everything_else_is_refused_for_its_reason() {
        let (site, other) = (Site::new(), Site::new());
        let present = site.issue(&site.key, "a", 100);
        let judged = |renewed: &Certificate| site.check(renewed, &present).unwrap_err();
        assert!(matches!(judged(&other.issue(&site.key, "a", 365)), RenewalError::Chain(_)));
        assert_eq!(judged(&site.issue(&other.key, "a", 365)), RenewalError::OtherKey);
        assert!(matches!(judged(&site.issue(&site.key, "b", 365)), RenewalError::OtherName { .. }));
        assert!(matches!(judged(&site.issue(&site.key, "a", 99)), RenewalError::NotNewer { .. }));
        assert_eq!(judged(&present), RenewalError::SameSerial);
        let text = site.issue(&site.key, "a", 365).to_pem() + "and more";
        let trailing = check(&text, site.key.public(), site.ca.anchor(), &present, NOW);
        assert!(matches!(trailing, Err(RenewalError::Unreadable(_))));
    }

    #[test]
    fn a_certificate_is_due_in_the_second_half_of_its_days() {
        let end = NOW + Duration::days(100);
        assert!(!is_due(end, 200, NOW));
        assert!(is_due(end, 200, NOW + Duration::SECOND));
        assert!(is_due(end, 201, NOW));
    }

    #[test]
    fn days_are_counted_whole_and_below_zero_once_over() {
        assert_eq!(days_left(NOW + Duration::hours(47), NOW), 1);
        assert_eq!(days_left(NOW, NOW), 0);
        assert_eq!(days_left(NOW - Duration::SECOND, NOW), -1);
    }
}
