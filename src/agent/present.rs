//! The agent's certificate, key and CA as their files are now, and the judgement of a certificate that may follow.
//!
//! Read anew each time: a pairing or a promotion may have replaced them since this process started.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::pki::cert::Certificate;
use crate::pki::chain::TrustAnchor;
use crate::pki::key::PrivateKey;
use crate::pki::renewal::{self, RenewalError};
use crate::tls::files::{self, CredentialError};

/// What a renewed certificate is judged by.
#[derive(Debug)]
pub struct Present {
    /// The certificate to be replaced.
    pub certificate: Certificate,
    /// The key of both.
    pub key: PrivateKey,
    /// The CA of both.
    pub ca: TrustAnchor,
}

/// Files of this agent that are not what they should be, so that nothing can be judged by them.
#[derive(Debug, thiserror::Error)]
pub enum PresentError {
    /// No CA.
    #[error("CA cert not found at '{}'", .0.display())]
    NoCa(PathBuf),
    /// No key.
    #[error("agent key not found at '{}'", .0.display())]
    NoKey(PathBuf),
    /// One of them cannot be used.
    #[error("the agent's own certificate cannot be renewed")]
    Unusable(#[from] CredentialError),
}

impl Present {
    /// Reads the three files.
    pub fn load(cert: &Path, key: &Path, ca: &Path) -> Result<Self, PresentError> {
        if !ca.is_file() {
            return Err(PresentError::NoCa(ca.to_owned()));
        }
        if !key.is_file() {
            return Err(PresentError::NoKey(key.to_owned()));
        }
        let certificate = files::identity(cert, key)?.certificate().clone();
        Ok(Self { certificate, key: files::key(key)?, ca: files::anchor(ca)? })
    }

    /// Judges a renewed certificate.
    pub fn judge(&self, renewed: &str, now: OffsetDateTime) -> Result<Certificate, RenewalError> {
        renewal::check(renewed, self.key.public(), &self.ca, &self.certificate, now)
    }
}
