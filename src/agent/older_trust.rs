//! The older trust file, one serial and nothing else, becomes a line of the trust map.
//!
//! Once, and only where there is no map: a map that is there, even an empty one, is somebody's decision. The older file
//! is removed afterwards, so that taking the map away later trusts nobody again.

use std::path::{Path, PathBuf};

use super::list_file;
use super::pairing::places::Places;
use super::pairing::trust_file::{self, TrustFileError};
use crate::audit::{Event, Level, Logger};
use crate::conf::Root;
use crate::pki::trust::TrustMap;
use crate::sys::file::{self, FileError};
use crate::wire::causes;

/// Where the original kept the file, in its order.
const PLACES: [&str; 2] = ["/etc/ctrl-exec-agent/ctrl-exec-serial", "/var/lib/ctrl-exec-agent/ctrl-exec-serial"];
/// Largest such file, in bytes.
const FILE: usize = 4096;

/// An older file that was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum OlderError {
    /// The file itself.
    #[error("the older trust file cannot be read")]
    File(#[source] FileError),
    /// No serial in it.
    #[error("the older trust file holds no serial, so nobody is trusted: pair again ({0})")]
    NoSerial(String),
    /// The map.
    #[error(transparent)]
    Map(#[from] TrustFileError),
    /// It is in the map, and could not be removed.
    #[error("the older trust file was taken over and cannot be removed: remove it by hand")]
    Left(#[source] FileError),
}

/// Takes the older file over, if there is one and no map, and logs it.
///
/// **Invariant:** only from a directory in which this agent, whose configuration is at `config`, has files that no script comes to.
/// An agent that has them elsewhere keeps nobody from those directories, so that anybody might have put the file there.
pub fn take_over(places: &Places, config: &Path, root: &Root, log: impl FnOnce() -> Logger) {
    let map = &places.trust;
    if map.symlink_metadata().is_ok() {
        return;
    }
    let closed = [config, &places.key, map, &places.staged].map(Path::parent);
    let there = |place: &PathBuf| closed.contains(&place.parent()) && place.symlink_metadata().is_ok();
    let Some(older) = PLACES.iter().map(|place| root.path(place)).find(there) else { return };
    let event = match migrate(map, &older) {
        Ok(Some(trusted)) => said(Level::Info, &older, &trusted).field("STATUS", "migrated"),
        Ok(None) => return,
        Err((trusted, error)) => said(Level::Warning, &older, &trusted).field("ERROR", causes::on_one_line(&error)),
    };
    log().emit(event);
}

fn said(level: Level, older: &Path, trusted: &TrustMap) -> Event {
    let event = Event::new(level, "trust-migrate").field("PATH", older.display());
    let entry = trusted.iter().next();
    event.maybe("SERIAL", entry.map(|(serial, _)| serial)).maybe("DISPATCHER", entry.map(|(_, id)| id))
}

/// What is trusted now, or nothing where somebody else has made a map meanwhile.
fn migrate(map: &Path, older: &Path) -> Result<Option<TrustMap>, (TrustMap, OlderError)> {
    let fail = |error| (TrustMap::default(), error);
    let bytes = file::read_unfollowed(older, FILE).map_err(|error| fail(OlderError::File(error)))?;
    let (trusted, warnings) = TrustMap::parse_legacy(&list_file::text(&bytes));
    if trusted.is_empty() {
        let reason = warnings.first().map_or_else(|| "it is empty".to_owned(), |warning| warning.reason.clone());
        return Err(fail(OlderError::NoSerial(reason)));
    }
    match trust_file::create(map, &trusted) {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        Err(error) => return Err(fail(error.into())),
    }
    match file::remove(older) {
        Err(error) if !error.is_not_found() => Err((trusted, OlderError::Left(error))),
        _ => Ok(Some(trusted)),
    }
}
