//! `pairing-status` and `paired`.

use super::{Globals, remedy};
use crate::agent::own_certificate::Own;
use crate::agent::snapshot::{self, SnapshotError};
use crate::cli::out;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::clock;
use crate::wire::causes;

/// Why the end of the certificate's validity cannot be told.
#[derive(Debug)]
pub enum Untold {
    /// This host is not paired, and why.
    Unpaired(String),
    /// This user may not read a file, which says nothing about the host.
    Denied(SnapshotError),
    /// There is a certificate, and no CA that it could be judged by.
    NoCa(SnapshotError),
}

impl From<SnapshotError> for Untold {
    fn from(error: SnapshotError) -> Self {
        if remedy::is_denied(&error) { Self::Denied(error) } else { Self::Unpaired(causes::on_one_line(&error)) }
    }
}

/// Says whether this host is paired; 1 if not, or with a certificate that no dispatcher accepts; 77 if this user cannot
/// know.
pub fn run(globals: &Globals) -> Result<Exit, Failure> {
    match own(globals) {
        Ok(Own { expiry, fault, .. }) => {
            out::line(format!("Paired. Certificate expires: {expiry}"));
            let Some(fault) = fault else { return Ok(Exit::Success) };
            out::line(format!("The certificate cannot serve: {fault}"));
            Ok(Exit::Failed)
        }
        Err(Untold::Unpaired(reason)) => {
            out::line(format!("Not paired. Reason: {reason}"));
            Ok(Exit::Failed)
        }
        Err(Untold::Denied(error)) => Err(remedy::denied(error, &globals.places())),
        Err(Untold::NoCa(error)) => Err(remedy::advised(error, &globals.places())),
    }
}

/// Says nothing; 0 if certificate, key and CA are there.
#[must_use]
pub fn paired(globals: &Globals) -> Exit {
    let settings = snapshot::settings(&globals.places());
    let paired = settings.is_ok_and(|(settings, _)| snapshot::is_paired(&settings));
    if paired { Exit::Success } else { Exit::Failed }
}

/// What is known of the certificate, or why nothing is.
pub(super) fn own(globals: &Globals) -> Result<Own, Untold> {
    let loaded = snapshot::configuration(&globals.places())?;
    if let Some(missing) = snapshot::unpaired(&loaded.settings) {
        return Err(Untold::Unpaired(format!("missing file: {}", missing.display())));
    }
    let identity = snapshot::identity(&loaded.settings)?;
    let anchor = snapshot::anchor(&loaded.settings);
    let anchor =
        anchor.map_err(|error| if remedy::is_denied(&error) { Untold::Denied(error) } else { Untold::NoCa(error) })?;
    Ok(Own::judge(identity.certificate(), &anchor, clock::now().into()))
}
