//! What `self-check` says of this host's own certificate, and of the files that its trust rests on.

use super::pairing_status::Untold;
use super::{Globals, pairing_status, remedy};
use crate::cli::out;
use crate::conf::agent::{Loaded, Settings};
use crate::sys::file::{self, Guarded, Unguarded};

/// Whether this host could serve with its certificate now; what ends soon is told and no fault.
pub(super) fn certificates(globals: &Globals, loaded: &Loaded) -> bool {
    let own = match pairing_status::own(globals) {
        Ok(own) => own,
        Err(Untold::Unpaired(reason)) => {
            out::line(format!("  Certs: NOT paired - {reason}"));
            return false;
        }
        Err(Untold::Denied(error)) => {
            out::line(format!("  Certs: {}", remedy::denied(error, &globals.places())));
            return false;
        }
        Err(Untold::NoCa(error)) => {
            out::line(format!("  CA: {}", remedy::told(error, &globals.places())));
            return false;
        }
    };
    if let Some(fault) = own.fault {
        let cert = loaded.settings.cert.display();
        out::line(format!("  Certs: {cert} (expires {}) cannot serve: {fault}", own.expiry));
        return false;
    }
    out::line(format!("  Certs OK (expires {})", own.expiry));
    if let Some(concern) = own.concern {
        out::line(format!("  Certs: {concern}"));
    }
    true
}

/// Whether nobody but root and the agent can have read the key, or written key or trust map. `eyes` says that this process
/// has the account of the agent in question. Nothing where another cannot tell.
pub(super) fn guarded(settings: &Settings, eyes: bool) -> Option<bool> {
    let files = [
        ("Private key", settings.key.as_path(), Guarded::Secret),
        ("Trust", settings.trusted_dispatchers_path.as_path(), Guarded::Unchanged),
    ];
    let mut found = Some(true);
    for (what, path, guarded) in files {
        let Some(Unguarded { what: doubt, cure, own }) = file::doubt(path, guarded) else { continue };
        // What would mend it for this account could take the file from the agent's.
        let ours = own || remedy::is_agent(settings);
        let rest =
            if ours { format!("({cure})") } else { format!("as this user sees it ({})", remedy::elsewhere(settings)) };
        out::line(format!("  {what}: {doubt} {rest}"));
        found = if ours || eyes { Some(false) } else { found.filter(|good| !good) };
    }
    found
}
