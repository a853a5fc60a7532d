//! `promote-cert` and `cert-staged`; and what has to be in order before the agent serves.
//!
//! `promote-cert` is what a service manager runs as root before each start, because the agent itself may not write to
//! its own configuration: it completes a pairing that was interrupted, takes an older trust file over, and puts a
//! renewed certificate in place.

use super::Globals;
use crate::agent::pairing::keep::{self, KeepError};
use crate::agent::pairing::places::Places;
use crate::agent::snapshot;
use crate::agent::{older_trust, promote};
use crate::audit::{Ident, Logger, Sockets};
use crate::cli::out;
use crate::exit::Exit;
use crate::wire::causes;

/// Does what [`prepare`] does. Always succeeds: whatever is wrong, `serve` says it better, or serves all the same.
#[must_use]
pub fn promote(globals: &Globals) -> Exit {
    let (places, doubt) = Places::load(&globals.config(), &globals.root());
    if let Some(doubt) = doubt {
        // The default places may be those of another agent.
        out::error(doubt);
    } else if let Err(error) = prepare(globals, &places) {
        out::error(causes::on_one_line(&error));
    }
    Exit::Success
}

/// 0 if a renewed certificate waits, else 1.
#[must_use]
pub fn staged(globals: &Globals) -> Exit {
    let settings = snapshot::settings(&globals.places());
    let staged = settings.is_ok_and(|(settings, _)| promote::is_there(&settings.cert_staging_path));
    if staged { Exit::Success } else { Exit::Failed }
}

/// What is not as it should be before a start, and can be set right.
///
/// # Errors
/// A pairing that is not in place: certificate and key may not fit.
pub fn prepare(globals: &Globals, places: &Places) -> Result<(), KeepError> {
    // A pairing that was killed while it was stored is completed first, or certificate and key would not fit.
    if keep::recover(places)? {
        out::error("An earlier pairing was interrupted while it was stored; it is complete now.");
    }
    let root = globals.root();
    let log = || Logger::open(Ident::Agent, Sockets::new(|place| root.path(place)));
    older_trust::take_over(places, &globals.config(), &root, log);
    promote::take_up(places, log);
    Ok(())
}
