//! `setup-ca` and `setup-ctrl-exec`: the CA and this dispatcher's own key and certificate.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::site::{Site, SiteError};
use crate::pki::ca::{Ca, CaError, DEFAULT_DAYS, DEFAULT_NAME, DISPATCHER_CN};
use crate::pki::csr::{self, CsrError, ExpectedName};
use crate::pki::key::{self, KeyError};
use crate::pki::serial::{self, RandomError};
use crate::store::StoreError;
use crate::sys::file::{self, Access, FileError};
use crate::sys::user::{self, Account};
use crate::wire::name::AgentName;

/// Something that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is a CA already; it is never replaced.
    #[error("CA key already exists: {} - nothing was changed", .0.display())]
    Exists(PathBuf),
    /// There is no CA to sign with.
    #[error("no CA key at {}", .0.display())]
    NoCa(PathBuf),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The site's own files.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA could not be made, or could not sign.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A key could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The dispatcher's request could not be made.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The fixed name is no name.
    #[error(transparent)]
    Name(#[from] crate::wire::name::NameError),
}

/// The files of a new CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaFiles {
    /// The private key, 0600.
    pub key: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
}

/// Makes a CA in `dir`. An existing one is never touched.
///
/// **Invariant:** the key is written last and only where there is none, under a lock: whatever interrupts this, there
/// is either no CA or a whole one.
pub fn setup_ca(dir: &Path) -> Result<CaFiles, SetupError> {
    let files = CaFiles { key: dir.join("ca.key"), cert: dir.join("ca.crt") };
    file::create_dir(dir, 0o750)?;
    let _lock = file::lock_exclusive(&dir.join(".setup.lock"), 0o600)?;
    file::sweep(dir);
    if files.key.exists() {
        return Err(SetupError::Exists(files.key));
    }
    let ca = Ca::create(DEFAULT_NAME, DEFAULT_DAYS, &serial::fresh()?, OffsetDateTime::now_utc())?;
    file::write_atomic(&files.cert, ca.certificate().to_pem().as_bytes(), Access::public())?;
    // Ours are random; the counter is there for a return to the original, which reads it.
    file::write_atomic(&dir.join("ca.serial"), b"01\n", Access::private())?;
    file::write_new(&files.key, ca.key_pem().as_bytes(), Access::private())?;
    Ok(files)
}

/// What `setup-ctrl-exec` would replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// There is a certificate.
    pub certificate: bool,
    /// Agents that trust it, and would have to be paired again.
    pub agents: usize,
}

/// Looks before anything is replaced.
pub fn existing(site: &Site) -> Result<Existing, SetupError> {
    let ca_key = site.settings.ca_dir.join("ca.key");
    if !ca_key.exists() {
        return Err(SetupError::NoCa(ca_key));
    }
    Ok(Existing { certificate: site.settings.cert.exists(), agents: site.registry.list()?.records.len() })
}

/// Makes this dispatcher's key and certificate, replacing what is there. Both are ready before the first is put in
/// place.
pub fn setup_ctrl_exec(site: &Site) -> Result<(), SetupError> {
    let settings = &site.settings;
    let ca = site.ca()?;
    let key = key::generate()?;
    let request = csr::make(&key, &AgentName::parse(DISPATCHER_CN)?)?;
    let request = csr::check(&request, ExpectedName::Exactly(DISPATCHER_CN))?;
    let cert = ca.sign_dispatcher(&request, &serial::fresh()?, settings.lifetimes.days, OffsetDateTime::now_utc())?;
    let mut access = Access::private();
    if user::is_root()
        && let Ok(Some(account)) = Account::by_name(&settings.service_user)
    {
        access = access.owner(account.uid()).group(account.gid());
    }
    file::write_atomic(&settings.key, key.to_pem().as_bytes(), access)?;
    Ok(file::write_atomic(&settings.cert, cert.to_pem().as_bytes(), Access::public())?)
}
