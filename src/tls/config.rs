//! One configuration for each end of each connection.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use super::identity::IdentitySlot;
use super::provider::provider;
use super::tickets::AgentEnd;
use super::verify::{AnyCertificate, CaVerifier};
use crate::pki::chain::TrustAnchor;

/// ALPN name of HTTP/2 over TLS (RFC 9113 3.2).
pub const HTTP_2: &[u8] = b"h2";
/// ALPN name of HTTP/1.1 (RFC 7301 6).
pub const HTTP_1: &[u8] = b"http/1.1";
/// ALPN name of our own pairing. The original knows no ALPN, which is how it is told apart before a CSR is made.
pub const PAIRING: &[u8] = b"ctrl-exec-pair/2";

pub(super) const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub(super) const NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];

/// A configuration that rustls does not accept.
#[derive(Debug, thiserror::Error)]
#[error("the TLS configuration cannot be made")]
pub struct TlsError(#[from] rustls::Error);

/// Whom a pairing may be with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairingPeers {
    /// Our own alone: TLS 1.3, to which the confirmation code is bound.
    Own,
    /// Those of the original too, which may speak TLS 1.2.
    OwnAndOriginal,
}

impl PairingPeers {
    const fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Own => NEWEST,
            Self::OwnAndOriginal => BOTH,
        }
    }
}

/// The agent's listener, HTTP/2 preferred: a client certificate of the CA is mandatory, and it hands out session tickets.
/// Whether the certificate's serial is trusted is judged for each request, not here.
pub fn agent_end(identity: Arc<IdentitySlot>, ca: &TrustAnchor) -> Result<AgentEnd, TlsError> {
    let (builder, verifier) = (ServerConfig::builder_with_provider(provider()), CaVerifier::new(ca));
    let builder = builder.with_protocol_versions(BOTH)?.with_client_cert_verifier(Arc::clone(&verifier) as Arc<_>);
    Ok(AgentEnd::new(served(builder.with_cert_resolver(identity), &[HTTP_2, HTTP_1]), verifier)?)
}

/// The pairing listener: clients have no certificate yet. A client that offers no ALPN gets none, and is of the
/// original; see [`super::peer::is_own_pairing`].
pub fn pairing_server(identity: Arc<IdentitySlot>, peers: PairingPeers) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(peers.versions())?;
    Ok(Arc::new(served(builder.with_no_client_auth().with_cert_resolver(identity), &[PAIRING])))
}

/// The dispatcher's, or the self-ping's, end towards an agent: the CA must have signed the agent's certificate. Which
/// agent it is, the caller decides by [`super::peer::certificate`]; no host name is sent or matched. HTTP/2 is offered
/// first; an agent of the original knows no ALPN, and speaks HTTP/1.
pub fn dispatcher_client(identity: Arc<IdentitySlot>, ca: &TrustAnchor) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(BOTH)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(CaVerifier::new(ca));
    Ok(dispatcher_end(builder.with_client_cert_resolver(identity)))
}

/// What every configuration towards an agent has.
pub(super) fn dispatcher_end(config: ClientConfig) -> Arc<ClientConfig> {
    calling(config, &[HTTP_2, HTTP_1])
}

/// The same end for a caller that speaks HTTP/1 alone.
#[must_use]
pub fn only_http_1(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    Arc::new(config)
}

/// The agent's end of a pairing: any server certificate, with proof that the server holds its key. The confirmation
/// code is what ties the certificate to the dispatcher that the operator sees.
pub fn pairing_client(peers: PairingPeers) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(peers.versions())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(AnyCertificate::new());
    Ok(calling(builder.with_no_client_auth(), &[PAIRING]))
}

/// What to give a connector for a name: an address, so that no SNI is sent. No verifier here looks at it.
#[must_use]
pub fn any_name() -> ServerName<'static> {
    ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED))
}

fn served(mut config: ServerConfig, protocols: &[&[u8]]) -> ServerConfig {
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

fn calling(mut config: ClientConfig, protocols: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Arc::new(config)
}
