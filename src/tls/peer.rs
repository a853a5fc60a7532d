//! Who is at the other end of a finished handshake, and what both ends alone know.

use rustls::{CommonState, ConnectionCommon, HandshakeKind, ProtocolVersion};

use super::config::{HTTP_2, PAIRING};
use crate::pki::cert::{CertError, Certificate};
use crate::wire::ping::Session;

/// A finished connection that does not tell what was asked.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No certificate.
    #[error("the peer showed no certificate")]
    Nobody,
    /// One that cannot be read again.
    #[error("the peer's certificate cannot be read")]
    Unreadable(#[source] CertError),
    /// Before TLS 1.3 two connections can share their exported keys (RFC 7627 1).
    #[error("the connection is not TLS 1.3: no confirmation code can be bound to it")]
    NotTls13,
    /// Handshake not finished.
    #[error("no key can be derived from the connection")]
    Exporter(#[source] rustls::Error),
}

/// The certificate the peer showed: serial, common name, key.
pub fn certificate(connection: &CommonState) -> Result<Certificate, PeerError> {
    let shown = connection.peer_certificates().and_then(<[_]>::first).ok_or(PeerError::Nobody)?;
    Certificate::from_der(shown).map_err(PeerError::Unreadable)
}

/// 32 bytes that both ends of this connection derive alike and a relay in the middle cannot (RFC 8446 7.5).
pub fn exporter<Data>(connection: &ConnectionCommon<Data>, label: &str, context: &[u8]) -> Result<[u8; 32], PeerError> {
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(PeerError::NotTls13);
    }
    connection.export_keying_material([0; 32], label.as_bytes(), Some(context)).map_err(PeerError::Exporter)
}

/// How the session of a finished handshake came about.
#[must_use]
pub fn session(connection: &CommonState) -> Session {
    if connection.handshake_kind() == Some(HandshakeKind::Resumed) { Session::Resumed } else { Session::Full }
}

/// Whether both ends agreed on HTTP/2.
#[must_use]
pub fn is_http_2(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(HTTP_2)
}

/// Whether both ends agreed on our own pairing, over TLS 1.3. Otherwise the peer is of the original, or claims to be.
#[must_use]
pub fn is_own_pairing(connection: &CommonState) -> bool {
    connection.alpn_protocol() == Some(PAIRING) && connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
}
