//! Whether a dispatcher's answer fits together: certificate, key, CA, name, and the serial to trust.

use time::OffsetDateTime;

use crate::pki::ca::DISPATCHER_CN;
use crate::pki::cert::{CertError, Certificate};
use crate::pki::chain::{self, ChainError, TrustAnchor, Usage};
use crate::pki::key::PublicKey;
use crate::pki::renewal::{self, RenewalError};
use crate::wire::name::{AgentName, DispatcherId};
use crate::wire::serial::Serial;

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The agent's certificate, PEM.
    pub cert: &'a str,
    /// The CA: in the strong form the one that the code covers.
    pub ca: &'a TrustAnchor,
    /// The certificate that the dispatcher showed on this connection.
    pub shown: &'a Certificate,
    /// The serial to trust, as sent. Empty: none, which only the original may say.
    pub dispatcher_serial: &'a str,
    /// Whose it is, as sent.
    pub dispatcher_id: &'a str,
}

/// An answer in which everything fits.
///
/// **Invariant:** made by [`judge`] alone.
#[derive(Clone, Debug)]
pub struct Sound {
    certificate: Certificate,
    ca: Certificate,
    trusted: Option<(Serial, DispatcherId)>,
}

impl Sound {
    /// The agent's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The CA's.
    #[must_use]
    pub const fn ca(&self) -> &Certificate {
        &self.ca
    }

    /// The serial to trust, and whose it is.
    #[must_use]
    pub const fn trusted(&self) -> Option<&(Serial, DispatcherId)> {
        self.trusted.as_ref()
    }
}

/// What does not fit.
#[derive(Debug, thiserror::Error)]
pub enum Unsound {
    /// The agent's certificate.
    #[error("the certificate in it cannot be read")]
    Certificate(#[source] CertError),
    /// The CA.
    #[error("the CA in it cannot be used")]
    Ca(#[source] ChainError),
    /// Certificate, key and CA.
    #[error("the certificate in it does not belong to this host's key or to the CA")]
    Fit(#[source] RenewalError),
    /// The name.
    #[error("the certificate in it is for {found}, not for {wanted:?}")]
    Name {
        /// Its subject.
        found: String,
        /// The name asked for.
        wanted: String,
    },
    /// The dispatcher's own certificate.
    #[error("the certificate that the dispatcher shows was not issued by the CA in its answer")]
    Dispatcher(#[source] ChainError),
    /// The certificate at the other end is an agent's.
    #[error("the other end shows the certificate of {0}, which is no dispatcher's")]
    NoDispatcher(String),
    /// No serial, or none that is one.
    #[error("the serial to trust, {0:?}, is none")]
    Serial(String),
    /// Somebody else's serial.
    #[error("the serial to trust, {found}, is not that of the certificate that the dispatcher shows, {shown}")]
    OtherSerial {
        /// As sent.
        found: Serial,
        /// On the connection.
        shown: Serial,
    },
    /// The id.
    #[error("the dispatcher's id is not valid")]
    Id(#[source] crate::wire::name::NameError),
}

/// Judges an answer.
pub fn judge(
    answer: &Answer<'_>,
    key: &PublicKey,
    hostname: &AgentName,
    now: OffsetDateTime,
) -> Result<Sound, Unsound> {
    let certificate = Certificate::from_pem(answer.cert).map_err(Unsound::Certificate)?;
    renewal::fits(&certificate, key, answer.ca, now).map_err(Unsound::Fit)?;
    if certificate.common_name() != Some(hostname.as_str()) {
        let found = certificate.subject_text().to_owned();
        return Err(Unsound::Name { found, wanted: hostname.to_string() });
    }
    dispatcher(answer.shown, answer.ca, now)?;
    Ok(Sound { certificate, ca: answer.ca.certificate().clone(), trusted: trusted(answer)? })
}

/// Whether the dispatcher's end of the connection holds a dispatcher's certificate of this CA. It will call with the
/// same one. Every agent has a certificate of the CA too: only the name tells that this one is no agent's.
pub fn dispatcher(shown: &Certificate, ca: &TrustAnchor, now: OffsetDateTime) -> Result<(), Unsound> {
    chain::verify(shown.der(), ca, Usage::Client, now).map_err(Unsound::Dispatcher)?;
    if shown.common_name() == Some(DISPATCHER_CN) {
        return Ok(());
    }
    Err(Unsound::NoDispatcher(shown.subject_text().chars().take(200).collect()))
}

fn trusted(answer: &Answer<'_>) -> Result<Option<(Serial, DispatcherId)>, Unsound> {
    if answer.dispatcher_serial.is_empty() {
        return Ok(None);
    }
    let found = Serial::parse_hex(answer.dispatcher_serial)
        .map_err(|_| Unsound::Serial(answer.dispatcher_serial.chars().take(80).collect()))?;
    let shown = answer.shown.serial();
    if found != *shown && !original_reading(answer.dispatcher_serial, shown) {
        return Err(Unsound::OtherSerial { found, shown: shown.clone() });
    }
    // The original falls back to the serial where there is no id.
    let id = if answer.dispatcher_id.is_empty() { answer.dispatcher_serial } else { answer.dispatcher_id };
    // What is trusted is the certificate that was seen, in whatever spelling it was sent.
    Ok(Some((shown.clone(), DispatcherId::parse(id).map_err(Unsound::Id)?)))
}

/// An original dispatcher whose serial has digits alone sends it as if those were decimal. That is still a statement
/// about the certificate on this connection, so it is believed of that one alone.
fn original_reading(sent: &str, shown: &Serial) -> bool {
    let readings = Serial::operator_readings(shown.as_str()).unwrap_or_default();
    Serial::parse_hex(sent).is_ok_and(|sent| readings.contains(&sent))
}
