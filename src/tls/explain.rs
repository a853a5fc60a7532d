//! Failed handshakes in words that say what to do.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};
use time::OffsetDateTime;

use crate::pki::cert::openssl_time;
use crate::wire::causes;

/// What a TLS error means to an operator.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(reason) => format!("the peer's certificate was refused: {}", certificate(reason)),
        Error::AlertReceived(alert) => received(*alert),
        Error::NoCertificatesPresented => "the peer showed no certificate, and one is demanded".to_owned(),
        Error::InvalidMessage(_) => "the peer does not speak TLS on this port".to_owned(),
        Error::PeerIncompatible(what) => format!("no TLS version or cipher in common with the peer ({what:?})"),
        Error::NoApplicationProtocol => "the peer speaks another protocol over TLS than this port's".to_owned(),
        other => format!("TLS failed: {other}"),
    }
}

/// What an I/O error of a TLS stream means to an operator.
#[must_use]
pub fn explain_io(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(tls) => explain(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the peer closed the connection during the TLS handshake".to_owned()
        }
        None => error.to_string(),
    }
}

fn certificate(reason: &CertificateError) -> String {
    let date = |seconds: u64| {
        let moment = i64::try_from(seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
        moment.map_or_else(|| "(no date)".to_owned(), openssl_time)
    };
    match reason {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("it expired on {}: renew it", date(not_after.as_secs()))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("it is valid from {} only: compare the clocks of both hosts", date(not_before.as_secs()))
        }
        CertificateError::UnknownIssuer => "it was not signed by this CA: pair again, or correct `ca`".to_owned(),
        CertificateError::BadSignature => "the peer does not hold its key".to_owned(),
        CertificateError::BadEncoding => "it is damaged, or its key is of a kind that is not supported".to_owned(),
        CertificateError::InvalidPurpose => "it was not issued for this use".to_owned(),
        CertificateError::Other(other) => causes::on_one_line(&*other.0),
        other => other.to_string(),
    }
}

fn received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "the peer demands a client certificate and got none",
        AlertDescription::UnknownCA => "the peer refused our certificate: it trusts another CA. Pair again",
        AlertDescription::CertificateExpired => {
            "the peer refused our certificate as expired or not yet valid: renew it, and compare the clocks"
        }
        AlertDescription::CertificateRevoked => "the peer refused our certificate as revoked",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => "the peer refused our certificate: its log says why",
        AlertDescription::DecryptError => "the peer could not check our certificate's signature",
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            "no TLS version or cipher in common with the peer"
        }
        AlertDescription::NoApplicationProtocol => "the peer speaks another protocol over TLS than was asked for",
        other => return format!("the peer ended the TLS handshake: {other:?}"),
    }
    .to_owned()
}
