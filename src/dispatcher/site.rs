//! What every verb of the dispatcher starts from: settings, registry, log.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::connect::Dialer;
use crate::audit::{Ident, Logger, Sockets};
use crate::conf::dispatcher::Settings;
use crate::conf::{ConfErrors, Root, Source, Warnings};
use crate::pki::ca::{Ca, CaError};
use crate::pki::cert::{CertError, Certificate};
use crate::pki::chain::TrustAnchor;
use crate::store::queue::Queue;
use crate::store::registry::Registry;
use crate::store::runs::Runs;
use crate::sys::file::{self, FileError};
use crate::sys::host;
use crate::tls::TlsError;
use crate::tls::files::{self, CredentialError};
use crate::tls::identity::Identity;
use crate::tls::resume::Caller;
use crate::wire::name::DispatcherId;

/// Largest configuration, certificate or key file read, in bytes.
const FILE: usize = 1024 * 1024;

/// A dispatcher's configuration and stores.
#[derive(Clone)]
pub struct Site {
    /// `ctrl-exec.conf`.
    pub settings: Settings,
    /// The registry.
    pub registry: Registry,
    /// The pairing queue.
    pub queue: Queue,
    /// The records of runs.
    pub runs: Runs,
    /// The log, as `ctrl-exec-dispatcher`.
    pub log: Logger,
}

/// A site that cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration is wrong; every error is listed.
    #[error("{0}")]
    Configuration(ConfErrors),
    /// A certificate or a key.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The dispatcher's certificate cannot be read.
    #[error("{} is not a certificate", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertError,
    },
    /// The CA cannot sign.
    #[error("the CA in {} cannot be used", dir.display())]
    Ca {
        /// The CA's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: CaError,
    },
    /// rustls refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl SiteError {
    /// The file operation behind it, if that is what failed.
    #[must_use]
    pub const fn file(&self) -> Option<&FileError> {
        match self {
            Self::File(error) | Self::Credential(CredentialError::File(error)) => Some(error),
            _ => None,
        }
    }
}

impl Site {
    /// Reads `ctrl-exec.conf`. Warnings are for the operator.
    pub fn load(path: &Path, root: &Root) -> Result<(Self, Warnings), SiteError> {
        let source = Source::new(path, file::read_bounded(path, FILE)?);
        let (settings, warnings) = Settings::parse(&source, root).map_err(SiteError::Configuration)?;
        let registry = Registry::new(settings.registry_dir.to_path_buf());
        let queue = Queue::new(settings.pairing_dir());
        let runs = Runs::new(settings.runs_dir());
        let log = Logger::serving(Ident::Dispatcher, Sockets::new(|place| root.path(place)));
        Ok((Self { settings, registry, queue, runs, log }, warnings))
    }

    /// Connections to agents, as this dispatcher. TLS sessions are kept for the next process in the directory `sessions`,
    /// where there is one.
    pub fn dialer(&self, sessions: Option<&Path>) -> Result<Dialer, SiteError> {
        let (identity, anchor) = (self.identity()?, Arc::new(files::own_anchor(&self.settings.ca)?));
        let caller = match sessions {
            Some(place) => Caller::with_sessions(identity, &anchor, place)?,
            None => Caller::new(identity, &anchor)?,
        };
        // Two streams of text, escaped at worst sixfold, and their exact bytes beside them.
        let most = usize::try_from(self.settings.max_output).unwrap_or(usize::MAX).saturating_mul(16);
        Ok(Dialer::new(caller, self.registry.clone(), self.settings.read_timeout, most))
    }

    /// The dispatcher's certificate and key.
    pub fn identity(&self) -> Result<Identity, SiteError> {
        Ok(files::identity(&self.settings.cert, &self.settings.key)?)
    }

    /// The dispatcher's certificate alone, which needs no right to read the key.
    pub fn certificate(&self) -> Result<Certificate, SiteError> {
        let path = self.settings.cert.as_path();
        let fail = |source| SiteError::Certificate { path: path.to_owned(), source };
        Certificate::from_pem_file(&files::text(path)?).map_err(fail)
    }

    /// The one CA that peers are verified against.
    pub fn anchor(&self) -> Result<Arc<TrustAnchor>, SiteError> {
        Ok(Arc::new(files::anchor(&self.settings.ca)?))
    }

    /// The CA with its key.
    pub fn ca(&self) -> Result<Ca, SiteError> {
        let dir = self.settings.ca_dir.as_path();
        let (key, cert) = (files::text(&dir.join("ca.key"))?, files::text(&dir.join("ca.crt"))?);
        Ca::load(&key, &cert).map_err(|source| SiteError::Ca { dir: dir.to_owned(), source })
    }

    /// The identity that agents know this dispatcher by.
    #[must_use]
    pub fn dispatcher_id(&self) -> DispatcherId {
        let configured = self.settings.dispatcher_id.clone();
        configured.unwrap_or_else(|| DispatcherId::sanitise(&host::hostname()))
    }
}
