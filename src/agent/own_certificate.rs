//! What is to be said of this host's own certificate: how long it holds, and whether a dispatcher would accept it now.

use time::{Duration, OffsetDateTime};

use crate::audit::{Event, Level, Logger};
use crate::conf::agent::Settings;
use crate::pki::cert::{Certificate, openssl_time};
use crate::pki::chain::{ChainError, TrustAnchor};
use crate::pki::renewal::{self, RenewalError};
use crate::wire::causes;

/// Days that dispatchers give a certificate unless they are told otherwise: one that has more (the original's pairing gave
/// 825) is renewed in the second half of this.
const YEAR: u32 = 365;

/// What is known of this host's certificate.
#[derive(Debug)]
pub struct Own {
    /// The end of its validity, in OpenSSL's form.
    pub expiry: String,
    /// Why no dispatcher would accept it now, and what to do.
    pub fault: Option<String>,
    /// What ends soon.
    pub concern: Option<String>,
}

impl Own {
    /// Judges a certificate under the CA as every dispatcher will.
    ///
    /// That the key is the certificate's own is known of every [`crate::tls::identity::Identity`].
    #[must_use]
    pub fn judge(certificate: &Certificate, ca: &TrustAnchor, now: OffsetDateTime) -> Self {
        let fits = renewal::fits(certificate, certificate.public_key(), ca, now);
        let fault = fits.err().map(|error| told(&error));
        let concern = if fault.is_none() { concern(certificate, ca, now) } else { None };
        Self { expiry: certificate.expiry_text(), fault, concern }
    }
}

/// Says in the log that no dispatcher accepts the agent's certificate, and what mends that. It serves all the same: a clock
/// may be wrong, and whatever is put in place is taken up by a reload.
pub fn warn(log: &Logger, settings: &Settings, fault: Option<&str>) {
    let Some(fault) = fault else { return };
    let event = Event::new(Level::Warning, "config-warn").field("KEY", "cert");
    log.emit(event.field("MSG", format!("{} cannot serve: {fault}", settings.cert.display())));
}

/// The reason, with what mends it: a certificate that no dispatcher accepts cannot be renewed over the connection.
fn told(error: &RenewalError) -> String {
    let RenewalError::Chain(reason) = error else { return causes::on_one_line(error) };
    let remedy = match reason {
        ChainError::CaExpired(_) => "set up a new CA at the dispatcher and pair its hosts again",
        ChainError::NotYetValid(_) | ChainError::CaNotYetValid(_) | ChainError::UnknownIssuer { .. } => {
            return causes::on_one_line(reason);
        }
        _ => "pair this host again (ctrl-exec-agent request-pairing --dispatcher HOST)",
    };
    format!("{}: {remedy}", causes::on_one_line(reason))
}

fn concern(certificate: &Certificate, ca: &TrustAnchor, now: OffsetDateTime) -> Option<String> {
    let ca = ca.certificate();
    if renewal::is_due(ca.not_after(), term(ca), now) && renewal::is_due(ca.not_after(), YEAR, now) {
        let end = openssl_time(ca.not_after());
        return Some(format!("the CA certificate expires on {end}: every certificate under it is void then"));
    }
    renewal::is_due(certificate.not_after(), term(certificate), now).then(|| {
        let days = renewal::days_left(certificate.not_after(), now);
        format!("{days} days are left, less than half: if the dispatcher does not renew it, pair this host again")
    })
}

/// The days that renewal counts by.
fn term(certificate: &Certificate) -> u32 {
    let whole: Duration = certificate.not_after() - certificate.not_before();
    u32::try_from(whole.whole_days()).unwrap_or(0).min(YEAR)
}
