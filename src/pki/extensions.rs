//! A certificate's extensions as far as a decision hangs on them (RFC 5280 4.2).

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension};
use x509_parser::objects::{oid_registry, oid2sn};

use super::der;

/// An extension that forbids the use of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// The same one twice.
    #[error("its extension {0} is there twice")]
    Duplicate(String),
    /// Damaged content.
    #[error("its extension {0} is damaged")]
    Malformed(String),
    /// Critical and not among those that are evaluated here.
    #[error("its extension {0} is marked critical and is not supported")]
    Critical(String),
}

/// What the extensions say; `None` where the extension is absent.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    /// `cA` of the basic constraints.
    pub(super) ca: Option<bool>,
    /// Key usage.
    pub(super) usage: Option<KeyUse>,
    /// Purposes of the extended key usage.
    pub(super) purposes: Option<Purposes>,
    /// Whether name constraints are there. They are not evaluated.
    pub(super) name_constraints: bool,
    /// The subject key identifier.
    pub(super) key_id: Option<Vec<u8>>,
}

/// Key usage bits that matter to TLS and to issuing.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyUse {
    /// Signatures, key encipherment or key agreement: what a TLS handshake does.
    pub(super) handshake: bool,
    /// keyCertSign.
    pub(super) sign_certificates: bool,
}

/// Purposes of a certificate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purposes {
    pub(super) server: bool,
    pub(super) client: bool,
}

impl From<&ExtendedKeyUsage<'_>> for Purposes {
    fn from(usage: &ExtendedKeyUsage<'_>) -> Self {
        Self { server: usage.any || usage.server_auth, client: usage.any || usage.client_auth }
    }
}

/// Reads all extensions of a certificate.
pub(super) fn read(x509: &X509Certificate<'_>) -> Result<Extensions, ExtensionError> {
    let mut found = Extensions::default();
    for (index, extension) in x509.extensions().iter().enumerate() {
        if x509.extensions().iter().take(index).any(|earlier| earlier.oid == extension.oid) {
            return Err(ExtensionError::Duplicate(name(extension)));
        }
        take(&mut found, extension)?;
    }
    Ok(found)
}

fn take(found: &mut Extensions, extension: &X509Extension<'_>) -> Result<(), ExtensionError> {
    let malformed = || ExtensionError::Malformed(name(extension));
    let mut understood = true;
    match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(basic) => found.ca = Some(basic.ca),
        ParsedExtension::KeyUsage(usage) => {
            found.usage = Some(KeyUse {
                handshake: usage.digital_signature() || usage.key_encipherment() || usage.key_agreement(),
                sign_certificates: usage.key_cert_sign(),
            });
        }
        ParsedExtension::ExtendedKeyUsage(usage) => found.purposes = Some(usage.into()),
        // Names are never matched (the dispatcher pins what it issued), but damaged ones show a broken issuer.
        ParsedExtension::SubjectAlternativeName(names) => {
            let damaged = |name: &GeneralName<'_>| matches!(name, GeneralName::Invalid(..));
            if names.general_names.is_empty() || names.general_names.iter().any(damaged) {
                return Err(malformed());
            }
        }
        ParsedExtension::NameConstraints(_) => found.name_constraints = true,
        ParsedExtension::SubjectKeyIdentifier(id) => {
            understood = false;
            found.key_id = Some(id.0.to_vec());
        }
        ParsedExtension::ParseError { .. } => return Err(malformed()),
        _ => understood = false,
    }
    match (understood, extension.critical) {
        (true, _) if !der::well_formed(extension.value) => Err(malformed()),
        (false, true) => Err(ExtensionError::Critical(name(extension))),
        _ => Ok(()),
    }
}

fn name(extension: &X509Extension<'_>) -> String {
    oid2sn(&extension.oid, oid_registry()).map_or_else(|_| extension.oid.to_id_string(), ToOwned::to_owned)
}
