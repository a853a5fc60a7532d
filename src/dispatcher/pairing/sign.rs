//! Signing with the CA, one signer at a time, and `ca.serial` kept for whoever goes back to the original.

use time::OffsetDateTime;

use crate::dispatcher::site::{Site, SiteError};
use crate::pki::ca::CaError;
use crate::pki::cert::Certificate;
use crate::pki::csr::CheckedCsr;
use crate::pki::serial::{self, RandomError};
use crate::sys::file::{self, FileError};

/// A certificate that was not issued.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The CA cannot be used.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// `ca.serial` cannot be locked or written.
    #[error("the CA's serial file cannot be kept")]
    Serial(#[from] FileError),
    /// No serial.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The CA did not sign.
    #[error("the certificate could not be issued")]
    Ca(#[from] CaError),
}

/// Issues an agent's certificate, valid for `cert_days` from `now`.
///
/// The lock is the one that the original takes: an exclusive flock(2) on `ca.serial`. The file is written in place, so
/// that it stays the file that others wait for.
pub fn sign_agent(site: &Site, request: &CheckedCsr, now: OffsetDateTime) -> Result<Certificate, SignError> {
    let path = site.settings.ca_dir.join("ca.serial");
    let ca = site.ca()?;
    let _lock = file::lock_exclusive(&path, 0o600)?;
    let serial = serial::fresh()?;
    let certificate = ca.sign_agent(request, &serial, site.settings.lifetimes.days, now)?;
    // Upper-case hex of even length and a newline: what `openssl x509 -CAserial` reads.
    let mut text = certificate.serial().as_str().to_ascii_uppercase();
    if text.len() % 2 == 1 {
        text.insert(0, '0');
    }
    text.push('\n');
    file::overwrite(&path, text.as_bytes())?;
    Ok(certificate)
}
