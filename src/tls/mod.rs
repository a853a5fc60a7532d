//! rustls configurations and our own verifiers.
//!
//! Stock rustls refuses the X.509 version-1 certificates of the original twice: when it verifies a peer's and when
//! it loads one's own. So the peer is judged by [`crate::pki::chain`], the handshake's signatures are checked with
//! the key it reads, and the own certificate comes from an [`identity::IdentitySlot`], which also makes it
//! replaceable while connections are open.
//!
//! | connection | server | client |
//! |---|---|---|
//! | 7443, dispatcher to agent | [`agent_end`] | [`resume::Caller`] |
//! | 7443, the agent to itself | [`agent_end`] | [`dispatcher_client`] |
//! | 7444, pairing | [`pairing_server`] | [`pairing_client`] |
//!
//! Everywhere: TLS 1.3, and 1.2 with ECDHE and AES-GCM only; the post-quantum hybrid X25519MLKEM768 first; no early
//! data, no key log. Sessions are resumed between a dispatcher's command line and an agent alone, with TLS 1.3 alone. A
//! resumed session answers for no certificate: the agent judges it anew ([`AgentEnd::judge`]), and the dispatcher
//! before it offers the session ([`resume`]).

mod config;
mod explain;
pub mod files;
pub mod identity;
pub mod peer;
mod provider;
pub mod resume;
mod tickets;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use config::{
    HTTP_1, HTTP_2, PAIRING, PairingPeers, TlsError, agent_end, any_name, dispatcher_client, only_http_1,
    pairing_client, pairing_server,
};
pub use explain::{explain, explain_io};
pub use provider::provider;
pub use tickets::{AgentEnd, Proof};
