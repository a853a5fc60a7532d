//! `pairing-status` and `paired`.

use super::{Globals, remedy};
use crate::agent::snapshot::{self, SnapshotError};
use crate::cli::out;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::wire::causes;

/// Why the end of the certificate's validity cannot be told.
#[derive(Debug)]
pub enum Untold {
    /// This host is not paired, and why.
    Unpaired(String),
    /// This user may not read a file, which says nothing about the host.
    Denied(SnapshotError),
}

impl From<SnapshotError> for Untold {
    fn from(error: SnapshotError) -> Self {
        if remedy::is_denied(&error) { Self::Denied(error) } else { Self::Unpaired(causes::on_one_line(&error)) }
    }
}

/// Says whether this host is paired; 1 if not, 77 if this user cannot know.
pub fn run(globals: &Globals) -> Result<Exit, Failure> {
    match expiry(globals) {
        Ok(expiry) => {
            out::line(format!("Paired. Certificate expires: {expiry}"));
            Ok(Exit::Success)
        }
        Err(Untold::Unpaired(reason)) => {
            out::line(format!("Not paired. Reason: {reason}"));
            Ok(Exit::Failed)
        }
        Err(Untold::Denied(error)) => Err(remedy::denied(error, &globals.places())),
    }
}

/// Says nothing; 0 if certificate, key and CA are there.
#[must_use]
pub fn paired(globals: &Globals) -> Exit {
    let settings = snapshot::settings(&globals.places());
    let paired = settings.is_ok_and(|(settings, _)| snapshot::is_paired(&settings));
    if paired { Exit::Success } else { Exit::Failed }
}

/// The end of the certificate's validity, or why it cannot be told.
pub fn expiry(globals: &Globals) -> Result<String, Untold> {
    let loaded = snapshot::configuration(&globals.places())?;
    if let Some(missing) = snapshot::unpaired(&loaded.settings) {
        return Err(Untold::Unpaired(format!("missing file: {}", missing.display())));
    }
    let identity = snapshot::identity(&loaded.settings)?;
    Ok(identity.certificate().expiry_text())
}
