//! What `self-check` says of the trust map and the revocation list.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::remedy;
use crate::agent::snapshot::{self, Places};
use crate::audit::{Ident, Logger};
use crate::cli::out;
use crate::conf::agent::{Loaded, Settings};
use crate::pki::revoked::RevocationList;
use crate::pki::trust::TrustMap;

/// The event of a line that could not be used as it is.
const DOUBT: &str = " ACTION=config-warn ";

/// Whether somebody is trusted who is not revoked, and every line of both files means something.
pub(super) fn lists(loaded: &Loaded, places: &Places) -> bool {
    let settings = &loaded.settings;
    let trust = trust(settings, places);
    let revoked = revoked(settings, places);
    let (Some((map, trust_good)), Some((list, list_good))) = (trust, revoked) else { return false };
    trust_good && list_good && somebody(&map, &list, settings)
}

fn trust(settings: &Settings, places: &Places) -> Option<(TrustMap, bool)> {
    let doubts = Doubts::default();
    let map = match snapshot::trust(settings, &doubts.log()) {
        Ok(map) => map,
        Err(error) => {
            out::line(format!("  Trust: {}", remedy::told(error, places)));
            return None;
        }
    };
    let path = settings.trusted_dispatchers_path.display();
    if map.is_empty() {
        out::line(format!("  Trust: no trusted dispatchers in {path}: every request is denied"));
    } else {
        out::line(format!("  Trust OK ({} dispatcher serials)", map.iter().count()));
    }
    let clear = doubts.none(|lines| {
        out::line(format!(
            "  Trust: {lines} in {path} to be put right, as told above: what cannot be read trusts nobody"
        ));
    });
    let good = !map.is_empty() && clear;
    Some((map, good))
}

fn revoked(settings: &Settings, places: &Places) -> Option<(RevocationList, bool)> {
    let path = settings.revoked_serials.display();
    // A link to nothing is no absent list: serving refuses it.
    let found = settings.revoked_serials.symlink_metadata();
    if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        out::line(format!("  Revocation: no list at {path}"));
        return Some((RevocationList::default(), true));
    }
    let doubts = Doubts::default();
    let list = match snapshot::revoked(settings, &doubts.log()) {
        Ok((list, _)) => list,
        Err(error) => {
            out::line(format!("  Revocation: {}", remedy::told(error, places)));
            return None;
        }
    };
    let clear = doubts.none(|lines| {
        out::line(format!(
            "  Revocation: {lines} in {path} to be put right, as told above: what cannot be read revokes nothing"
        ));
    });
    if clear {
        out::line("  Revocation OK");
    }
    Some((list, clear))
}

/// Whether anybody is left when the revoked ones are gone.
fn somebody(map: &TrustMap, list: &RevocationList, settings: &Settings) -> bool {
    let revoked = map.iter().filter(|(serial, _)| list.contains(serial)).count();
    let all = map.iter().count();
    if revoked > 0 {
        let (trust, list) = (settings.trusted_dispatchers_path.display(), settings.revoked_serials.display());
        let cost = if revoked == all { ": every request is denied" } else { "" };
        out::line(format!("  Trust: {revoked} of the {all} serials in {trust} are revoked by {list}{cost}"));
    }
    revoked < all
}

/// The words of the reader about lines, which are shown as they come, and counted.
#[derive(Clone, Default)]
struct Doubts(Arc<AtomicUsize>);

impl Doubts {
    fn log(&self) -> Logger {
        Logger::to_writer(Ident::Agent, Box::new(self.clone()))
    }

    /// Whether there were none; else tells how many.
    fn none(&self, tell: impl FnOnce(String)) -> bool {
        match self.0.load(Ordering::Relaxed) {
            0 => return true,
            1 => tell("a line".to_owned()),
            lines => tell(format!("{lines} lines")),
        }
        false
    }
}

impl Write for Doubts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The logger writes a line at a time.
        let is_one = bytes.windows(DOUBT.len()).any(|part| part == DOUBT.as_bytes());
        self.0.fetch_add(usize::from(is_one), Ordering::Relaxed);
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
