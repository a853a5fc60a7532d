//! The kept sessions of one certificate under one CA: sealed files in a directory of one user's.

use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::client::Tls13ClientSessionValue;

use super::ends::Ends;
use super::memory;
use super::session::Session;
use super::vault::Vault;
use crate::pki::chain::TrustAnchor;
use crate::sys::file::PrivateDir;
use crate::tls::identity::Identity;

/// Largest file: a ticket holds our certificates, and the agent's stand beside it.
const FILE: usize = 64 * 1024;
/// How often the directory is swept, and what is old in it.
const SWEEP: (Duration, Duration) = (Duration::from_mins(10), Duration::from_hours(1));

/// Where sessions are kept, and what they are restored with.
pub(super) struct Cache {
    dir: PrivateDir,
    vault: Vault,
    /// The end of the own certificate, in milliseconds since 1970.
    not_after: u64,
    ends: Ends,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Cache {
    /// # Errors
    /// The cryptographic library refuses.
    pub(super) fn new(dir: PrivateDir, identity: Identity, ca: &TrustAnchor) -> Result<Self, rustls::Error> {
        let vault = Vault::new(&identity, ca.certificate()).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        let not_after = identity.certificate().not_after().unix_timestamp();
        let not_after = u64::try_from(not_after).unwrap_or(0).saturating_mul(1000);
        Ok(Self { dir, vault, not_after, ends: Ends::new(identity, ca)? })
    }

    pub(super) const fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Takes the session of a peer out and restores it; with it, when both ends last proved their keys.
    pub(super) fn take(&self, peer: &str, now: u64) -> Option<(Tls13ClientSessionValue, u64)> {
        let sealed = self.dir.take(&self.vault.name(peer), FILE).ok()??;
        let session = Session::decode(&self.vault.open(peer, &sealed)?)?;
        let left = session.left(now).filter(|_| now < self.not_after)?;
        // Whoever can seal has verified it under this CA before.
        self.ends.verifier().ca.ca().vouch(session.chain.first()?);
        let restored = memory::restore(&session, left, &self.ends)?;
        Some((restored, session.proven))
    }

    /// Keeps a session; what fails here costs the next process a full handshake.
    pub(super) fn put(&self, peer: &str, session: &Session) -> Option<()> {
        let sealed = self.vault.seal(peer, session.encode()?).ok().filter(|sealed| sealed.len() <= FILE)?;
        self.dir.put(&self.vault.name(peer), &sealed).ok()?;
        self.dir.sweep(SystemTime::now(), SWEEP.0, SWEEP.1);
        Some(())
    }
}
