//! What a certificate says: X.509 version 3 as made here, and version 1 without extensions as the original makes it.
//!
//! Reading a certificate proves nothing about who made it; [`super::chain`] does that.

use std::fmt;

use rustls::pki_types::CertificateDer;
use time::{Month, OffsetDateTime, PrimitiveDateTime, Time};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::der::{self, Element};
use super::key::{KeyError, PublicKey};
use super::pem::{self, PemError};
use crate::wire::serial::Serial;

const LABEL: &str = "CERTIFICATE";
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A text or bytes that are no usable certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertError {
    /// The PEM around it.
    #[error("the certificate cannot be read")]
    Pem(#[from] PemError),
    /// Not a certificate, or not wholly one.
    #[error("the certificate is damaged: it is not one well-formed X.509 certificate")]
    Damaged,
    /// A key of an unknown kind or length.
    #[error("the certificate's public key cannot be used")]
    Key(#[source] KeyError),
}

/// One certificate, read whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    version: u32,
    serial: Serial,
    common_name: Option<String>,
    subject_text: String,
    issuer_text: String,
    subject: Vec<u8>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    public_key: PublicKey,
}

/// A certificate as it was parsed, with the elements that signatures cover.
pub(super) struct Parsed<'a> {
    pub(super) x509: X509Certificate<'a>,
    pub(super) tbs: Element<'a>,
    pub(super) inner_algorithm: Element<'a>,
    pub(super) outer_algorithm: Element<'a>,
    pub(super) signature: Element<'a>,
}

/// Parses DER, all of it.
pub(super) fn parse(input: &[u8]) -> Result<Parsed<'_>, CertError> {
    if !der::well_formed(input) {
        return Err(CertError::Damaged);
    }
    let (_, x509) = X509Certificate::from_der(input).map_err(|_| CertError::Damaged)?;
    let outer = der::only(input).and_then(|outer| der::children(outer.content)).ok_or(CertError::Damaged)?;
    let [tbs, outer_algorithm, signature] = *outer.as_slice() else { return Err(CertError::Damaged) };
    let fields = der::children(tbs.content).ok_or(CertError::Damaged)?;
    // RFC 5280 4.1: the signature algorithm follows the serial, the only INTEGER among the fields.
    let mut after_serial = fields.iter().skip_while(|field| field.tag != der::INTEGER).skip(1);
    let inner_algorithm = *after_serial.next().ok_or(CertError::Damaged)?;
    Ok(Parsed { x509, tbs, inner_algorithm, outer_algorithm, signature })
}

impl Certificate {
    /// Reads DER. Nothing may follow the certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertError> {
        Self::from_parsed(der, &parse(der)?)
    }

    /// Reads a PEM text that a peer sent: one block and nothing else.
    pub fn from_pem(text: &str) -> Result<Self, CertError> {
        Self::from_der(&pem::strict(text, LABEL)?)
    }

    /// Reads an operator's PEM file: exactly one certificate; explanatory text around it is passed over.
    pub fn from_pem_file(text: &str) -> Result<Self, CertError> {
        Self::from_der(&pem::single(text, LABEL)?)
    }

    pub(super) fn from_parsed(der: &[u8], parsed: &Parsed<'_>) -> Result<Self, CertError> {
        let x509 = &parsed.x509;
        let public_key = PublicKey::from_spki(x509.public_key().raw).map_err(CertError::Key)?;
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            version: x509.version().0.saturating_add(1),
            serial: Serial::from_bytes(x509.raw_serial()),
            common_name: only_common_name(x509.subject()),
            subject_text: x509.subject().to_string(),
            issuer_text: x509.issuer().to_string(),
            subject: x509.subject().as_raw().to_vec(),
            not_before: x509.validity().not_before.to_datetime(),
            not_after: x509.validity().not_after.to_datetime(),
            public_key,
        })
    }

    /// The DER.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The PEM text, with a newline at its end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode(LABEL, &self.der)
    }

    /// The X.509 version as people count it: 1 or 3.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// The serial number in canonical form.
    #[must_use]
    pub const fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The subject's common name; `None` where it has none, several, or one that is not readable text.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// The subject for people.
    #[must_use]
    pub fn subject_text(&self) -> &str {
        &self.subject_text
    }

    /// The issuer for people.
    #[must_use]
    pub fn issuer_text(&self) -> &str {
        &self.issuer_text
    }

    /// The subject's DER `Name`.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// First moment of validity, inclusive.
    #[must_use]
    pub const fn not_before(&self) -> OffsetDateTime {
        self.not_before
    }

    /// Last moment of validity, inclusive.
    #[must_use]
    pub const fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The public key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// SHA-256 of the DER certificate.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        super::key::sha256(&self.der)
    }

    /// The expiry as OpenSSL prints it, which is what registries, replies and their readers hold.
    #[must_use]
    pub fn expiry_text(&self) -> String {
        openssl_time(self.not_after)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, serial {}, until {})", self.subject_text, self.serial, self.expiry_text())
    }
}

/// The one common name of a subject, if it has exactly one and it is text.
pub(super) fn only_common_name(name: &X509Name<'_>) -> Option<String> {
    let mut names = name.iter_common_name();
    let only = names.next()?.as_str().ok()?;
    names.next().is_none().then(|| only.to_owned())
}

/// A moment as `openssl x509 -enddate` prints it: `Dec  2 05:19:33 2026 GMT`, the day padded with a blank.
#[must_use]
pub fn openssl_time(moment: OffsetDateTime) -> String {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    let month = MONTHS.get(usize::from(u8::from(moment.month()) - 1)).unwrap_or(&"???");
    let (hour, minute, second) = moment.to_hms();
    format!("{month} {:>2} {hour:02}:{minute:02}:{second:02} {} GMT", moment.day(), moment.year())
}

/// Reads what [`openssl_time`] writes; `None` for any other text.
#[must_use]
pub fn parse_openssl_time(text: &str) -> Option<OffsetDateTime> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [month, day, clock, year, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().zip(1_u8..).find(|(name, _)| *name == month)?.1;
    let mut parts = clock.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let date =
        time::Date::from_calendar_date(year.parse().ok()?, Month::try_from(month).ok()?, day.parse().ok()?).ok()?;
    let clock = Time::from_hms(hour, minute, second).ok().filter(|_| parts.next().is_none())?;
    Some(PrimitiveDateTime::new(date, clock).assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::testing::Openssl;
    use time::macros::datetime;

    #[test]
    fn an_original_version_1_leaf_is_read_as_openssl_reads_it() {
        let openssl = Openssl::new();
        openssl.original_ca(2048);
        openssl.original_leaf("web-01.example.com", false);
        let cert = Certificate::from_pem(&openssl.read("web-01.example.com.crt")).unwrap();
        assert_eq!(cert.version(), 1);
        assert_eq!(cert.common_name(), Some("web-01.example.com"));
        let serial = openssl.run("x509 -in web-01.example.com.crt -noout -serial");
        // openssl prints whole bytes, so a leading zero may stand before ours.
        assert_eq!(&Serial::parse_hex(&serial).unwrap(), cert.serial());
        let end = openssl.run("x509 -in web-01.example.com.crt -noout -enddate");
        assert_eq!(end, format!("notAfter={}\n", cert.expiry_text()));
        assert_eq!(parse_openssl_time(&cert.expiry_text()), Some(cert.not_after()));
    }

    #[test]
    fn trailing_data_and_second_certificates_are_refused() {
        let openssl = Openssl::new();
        openssl.original_ca(2048);
        let text = openssl.read("ca.crt");
        assert!(Certificate::from_pem(&format!("{text}junk")).is_err());
        assert!(Certificate::from_pem(&format!("subject\n{text}")).is_err());
        assert!(Certificate::from_pem_file(&format!("subject\n{text}")).is_ok());
        assert!(Certificate::from_pem_file(&text.repeat(2)).is_err());
        let mut der = Certificate::from_pem(&text).unwrap().der().to_vec();
        der.push(0);
        assert_eq!(Certificate::from_der(&der), Err(CertError::Damaged));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_strange_to_read(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let _ = Certificate::from_der(&bytes);
            let _ = Certificate::from_der(&der::sequence(&[&bytes]));
        }
    }

    #[test]
    fn openssl_times_are_written_and_read() {
        let moment = datetime!(2026-12-02 05:19:33 UTC);
        assert_eq!(openssl_time(moment), "Dec  2 05:19:33 2026 GMT");
        assert_eq!(parse_openssl_time("Dec  2 05:19:33 2026 GMT"), Some(moment));
        assert_eq!(parse_openssl_time("Dec 12 05:19:33 2026 GMT"), Some(datetime!(2026-12-12 05:19:33 UTC)));
        for text in
            ["", "Dec  2 05:19:33 2026", "Foo  2 05:19:33 2026 GMT", "Feb 30 05:19:33 2026 GMT", "Dec 2 05:19 2026 GMT"]
        {
            assert_eq!(parse_openssl_time(text), None, "{text}");
        }
    }
}
