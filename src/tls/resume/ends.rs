//! What the real client and the client in memory have in common: rustls resumes a session only with the verifier and the
//! identity that it was made with, the same objects.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::own::{OwnKey, Verifier};
use super::store::Store;
use super::{config, suites};
use crate::pki::chain::TrustAnchor;
use crate::tls::identity::{Identity, IdentitySlot};
use crate::tls::provider::provider;
use crate::tls::verify::CaVerifier;

/// One identity, and the verifier of its peers.
pub(super) struct Ends {
    verifier: Arc<Verifier>,
    identity: Arc<IdentitySlot>,
}

impl Ends {
    /// For this identity under this CA.
    pub(super) fn new(identity: Identity, ca: &TrustAnchor) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(Verifier { ca: CaVerifier::new(ca), own: OwnKey::generate()? });
        Ok(Self { verifier, identity: IdentitySlot::new(identity) })
    }

    pub(super) fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// For connections over the network.
    pub(super) fn over_network(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider =
            CryptoProvider { cipher_suites: suites::watched().to_vec(), ..CryptoProvider::clone(&provider()) };
        self.make(provider, config::BOTH).map(config::dispatcher_end)
    }

    /// For a handshake in memory.
    pub(super) fn in_memory(
        &self,
        provider: CryptoProvider,
        store: &Arc<Store>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut config = self.make(provider, config::NEWEST)?;
        config.enable_sni = false;
        config.resumption = store.resumption();
        Ok(Arc::new(config))
    }

    fn make(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&self.verifier) as Arc<_>);
        Ok(builder.with_client_cert_resolver(Arc::clone(&self.identity) as Arc<_>))
    }
}
