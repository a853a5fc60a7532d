//! The dispatcher's end of a connection, and TLS sessions that outlive the process: what one call was given, the next
//! one resumes. A full handshake proves both ends' keys anew, which costs more than all the rest of a short call.
//!
//! rustls resumes sessions from a store of ours, but it neither shows what is in a session nor makes one from parts. So
//! both ways go round that, through its public interfaces alone, and [RFC 8446] is what they rely on:
//!
//! - **Keeping.** The cipher suites are parts that a program may supply. Ours are the provider's, watched (`suites`):
//!   the `NewSessionTicket` message is seen as it is decrypted, and the ticket's secret as it is derived from the nonce in
//!   it. When rustls hands the session to the store, its parts are known (`watch`).
//! - **Restoring.** A handshake in memory between rustls' client and rustls' server, in which the server hands out the
//!   kept ticket and the kept secret takes the place of the one that would be derived (`memory`). rustls then stores a
//!   session like any other, which the real connection resumes.
//!
//! If a later rustls works otherwise, nothing is kept or nothing is restored and every handshake is a full one, which the
//! tests of this module notice. The server that is resumed with decides for itself whether it knows the ticket.
//!
//! What holds:
//!
//! - A session is resumed with a key exchange of its own (`psk_dhe_ke`), so that a secret that leaks later opens no
//!   recorded connection; early data is never sent; TLS 1.2 is never resumed.
//! - A ticket is used once (appendix C.4): it is taken out of the cache before it is offered.
//! - It is used for an hour at most, as long as the server allows at most, and 12 hours after the last full handshake at
//!   most; never after the end of either certificate, or of the CA's.
//! - It is used for the same address and port, with the same own certificate and key, under the same CA certificate: what
//!   is kept is sealed for these (`vault`).
//! - Whether the agent's certificate holds *now* is judged when a session is restored, by the verifier of every
//!   handshake. The CA's signature over it alone is not computed again: it was, by the process that sealed the session.
//! - The certificate is what the connection shows as its peer's, so that the caller judges the pin as ever.
//! - Anything that is wrong with a kept session means a full handshake, never an error.
//!
//! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

mod cache;
mod ends;
mod keeper;
mod memory;
mod own;
mod session;
mod store;
mod suites;
mod vault;
mod watch;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ClientConnection};

use self::cache::Cache;
use self::keeper::Keeper;
use self::store::Store;
use super::config::{self, TlsError};
use super::identity::{Identity, IdentitySlot};
use crate::pki::chain::TrustAnchor;
use crate::sys::file::PrivateDir;

/// The dispatcher's end of every connection to an agent.
#[derive(Clone, Debug)]
pub struct Caller {
    config: Arc<ClientConfig>,
    cache: Option<Arc<Cache>>,
}

/// One connection that is about to be made.
#[derive(Clone, Debug)]
pub struct Call {
    config: Arc<ClientConfig>,
    keeper: Option<Arc<Keeper>>,
}

impl Caller {
    /// Without sessions of other processes: every handshake is a full one.
    pub fn new(identity: Identity, ca: &TrustAnchor) -> Result<Self, TlsError> {
        let config = config::dispatcher_client(IdentitySlot::new(identity), ca)?;
        Ok(Self { config, cache: None })
    }

    /// With the sessions that are kept in a directory of this user's; without any where that cannot be used.
    pub fn with_sessions(identity: Identity, ca: &TrustAnchor, place: &Path) -> Result<Self, TlsError> {
        let Ok(dir) = PrivateDir::open(place) else { return Self::new(identity, ca) };
        let cache = Arc::new(Cache::new(dir, identity, ca)?);
        Ok(Self { config: cache.ends().over_network()?, cache: Some(cache) })
    }

    /// Gets ready to call a peer, which is named by its address and port. A kept session is taken out of the cache here.
    #[must_use]
    pub fn call(&self, peer: &str) -> Call {
        let Some(cache) = &self.cache else { return Call { config: Arc::clone(&self.config), keeper: None } };
        let (session, proven) = cache.take(peer, unix_millis()).unzip();
        let keeper = Keeper::new(Arc::clone(cache), peer, proven);
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Store::new(session, Arc::clone(&keeper) as Arc<_>).resumption();
        Call { config: Arc::new(config), keeper: Some(keeper) }
    }
}

impl Call {
    /// For this one connection.
    #[must_use]
    pub const fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// The handshake is over, once: the next ticket of the peer is kept, if it is one of our own. A server of the original
    /// may answer a resumption with an error, since OpenSSL wants to be told what its sessions are for.
    pub fn keep(&self, connection: &ClientConnection) {
        if let Some(keeper) = &self.keeper {
            keeper.finished(connection, unix_millis());
        }
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
