//! Certificates and keys from the files that a configuration names.

use std::path::{Path, PathBuf};

use super::identity::{Identity, IdentityError};
use crate::pki::chain::{ChainError, TrustAnchor};
use crate::pki::key::{KeyError, PrivateKey};
use crate::sys::file::{self, FileError};

/// Largest certificate or key file, in bytes.
const FILE: usize = 1024 * 1024;

/// Files that cannot be used as what the configuration says they are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not text.
    #[error("{} is not text", .0.display())]
    NotText(PathBuf),
    /// Certificate and key cannot be used.
    #[error("{} and {} cannot be used", cert.display(), key.display())]
    Identity {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// The private key cannot be used.
    #[error("{} cannot be used as the private key", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The CA certificate cannot be used.
    #[error("{} cannot be used as the CA", path.display())]
    Anchor {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ChainError,
    },
}

/// A certificate with its key.
pub fn identity(cert: &Path, key: &Path) -> Result<Identity, CredentialError> {
    let fail = |source| CredentialError::Identity { cert: cert.to_owned(), key: key.to_owned(), source };
    Identity::load(&text(cert)?, &text(key)?).map_err(fail)
}

/// A private key alone, to make a request with.
pub fn key(path: &Path) -> Result<PrivateKey, CredentialError> {
    PrivateKey::from_pem(&text(path)?).map_err(|source| CredentialError::Key { path: path.to_owned(), source })
}

/// The one CA that peers are verified against.
pub fn anchor(path: &Path) -> Result<TrustAnchor, CredentialError> {
    let fail = |source| CredentialError::Anchor { path: path.to_owned(), source };
    TrustAnchor::from_pem_file(&text(path)?).map_err(fail)
}

/// As [`anchor`], for a process that lives for one call ([`TrustAnchor::from_own_pem_file`]).
pub fn own_anchor(path: &Path) -> Result<TrustAnchor, CredentialError> {
    let fail = |source| CredentialError::Anchor { path: path.to_owned(), source };
    TrustAnchor::from_own_pem_file(&text(path)?).map_err(fail)
}

/// A text file.
pub fn text(path: &Path) -> Result<String, CredentialError> {
    String::from_utf8(file::read_bounded(path, FILE)?).map_err(|_| CredentialError::NotText(path.to_owned()))
}
