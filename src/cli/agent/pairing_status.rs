//! `pairing-status` and `paired`.

use super::Globals;
use crate::agent::snapshot;
use crate::cli::out;
use crate::exit::Exit;
use crate::wire::causes;

/// Says whether this host is paired; 1 if not.
#[must_use]
pub fn run(globals: &Globals) -> Exit {
    match expiry(globals) {
        Ok(expiry) => {
            out::line(format!("Paired. Certificate expires: {expiry}"));
            Exit::Success
        }
        Err(reason) => {
            out::line(format!("Not paired. Reason: {reason}"));
            Exit::Failed
        }
    }
}

/// Says nothing; 0 if certificate, key and CA are there.
#[must_use]
pub fn paired(globals: &Globals) -> Exit {
    let settings = snapshot::settings(&globals.places());
    let paired = settings.is_ok_and(|(settings, _)| snapshot::unpaired(&settings).is_none());
    if paired { Exit::Success } else { Exit::Failed }
}

/// The end of the certificate's validity, or why this host is not paired.
pub fn expiry(globals: &Globals) -> Result<String, String> {
    let loaded = snapshot::configuration(&globals.places()).map_err(|error| causes::on_one_line(&error))?;
    if let Some(missing) = snapshot::unpaired(&loaded.settings) {
        return Err(format!("missing file: {}", missing.display()));
    }
    let identity = snapshot::identity(&loaded.settings).map_err(|error| causes::on_one_line(&error))?;
    Ok(identity.certificate().expiry_text())
}
