//! A staged certificate takes the place of the present one.
//!
//! The agent may write where it stages, and as a rule not where its certificate is: `promote-cert` does that as root
//! before each start. `serve` does the same at its own start, before it gives up root, and at each reload, wherever it
//! may write to the certificate's place: in a container nobody else would. Elsewhere the certificate stays staged until
//! somebody may, and `ping` says so.
//!
//! What is staged was judged when it came in and is judged again here, since the directory is the agent's: it is the
//! same key's, the same name's, of the same CA, and newer; else it is removed. A fault that is not its own (files that
//! cannot be read or written, a clock that is behind) leaves it where it is.

use std::path::Path;

use time::OffsetDateTime;

use super::pairing::keep;
use super::pairing::places::Places;
use super::present::{Present, PresentError};
use crate::audit::{Event, Level, Logger};
use crate::pki::cert::Certificate;
use crate::pki::chain::ChainError;
use crate::pki::renewal::RenewalError;
use crate::sys::file::{self, Access, FileError};
use crate::sys::user;
use crate::wire::causes;

/// Largest certificate, in bytes.
const FILE: usize = 65_536;

/// A staged certificate that was not promoted.
#[derive(Debug, thiserror::Error)]
pub enum PromoteError {
    /// It is no file to be read as one.
    #[error("the staged certificate cannot be read")]
    Staged(#[source] FileError),
    /// It may not take the present one's place.
    #[error(transparent)]
    Renewed(#[from] RenewalError),
    /// The agent's other files.
    #[error(transparent)]
    Present(#[from] PresentError),
    /// The certificate's place, or the staged file's.
    #[error("the renewed certificate cannot be put in place")]
    Place(#[source] FileError),
}

impl PromoteError {
    /// Whether a later attempt can end otherwise, with the same staged certificate.
    fn passes(&self) -> bool {
        match self {
            Self::Staged(error) => error.is_permission_denied(),
            Self::Renewed(RenewalError::Chain(error)) => {
                matches!(error, ChainError::NotYetValid(_) | ChainError::CaNotYetValid(_))
            }
            Self::Renewed(_) => false,
            Self::Present(_) | Self::Place(_) => true,
        }
    }
}

/// Promotes a staged certificate, if there is one and this process may, and logs what came of it.
pub fn take_up(places: &Places, log: impl FnOnce() -> Logger) {
    if !is_there(&places.staged) || !may_write(places) {
        return;
    }
    let event = match promote(places, OffsetDateTime::now_utc()) {
        Ok(false) => return,
        Ok(true) => Event::new(Level::Info, "cert-promote").field("STATUS", "installed"),
        Err(error) => Event::new(Level::Warning, "cert-promote").field("ERROR", causes::on_one_line(&error)),
    };
    log().emit(event);
}

/// Whether a certificate waits that may take the present one's place, or has taken it already. Nothing is changed.
///
/// # Errors
/// Why the one that waits may not.
pub fn judge(places: &Places, now: OffsetDateTime) -> Result<bool, PromoteError> {
    match file::read_unfollowed(&places.staged, FILE) {
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(PromoteError::Staged(error)),
        Ok(bytes) => successor(places, &String::from_utf8_lossy(&bytes), now).map(|_| true),
    }
}

/// Whether something is staged.
#[must_use]
pub fn is_there(staged: &Path) -> bool {
    staged.symlink_metadata().is_ok()
}

fn may_write(places: &Places) -> bool {
    // The key's directory holds the lock.
    let directories = [places.cert.parent(), places.key.parent(), places.staged.parent()];
    directories.into_iter().flatten().all(file::is_writable_dir)
}

/// Says whether a certificate was put in place.
fn promote(places: &Places, now: OffsetDateTime) -> Result<bool, PromoteError> {
    // No pairing may replace key and certificate meanwhile.
    let _lock = keep::lock(places).map_err(PromoteError::Place)?;
    let bytes = match file::read_unfollowed(&places.staged, FILE) {
        Err(error) if error.is_not_found() => return Ok(false),
        other => other,
    };
    let result = bytes.map_err(PromoteError::Staged).and_then(|bytes| {
        put(places, &String::from_utf8_lossy(&bytes), now)?;
        Ok(bytes)
    });
    match result {
        // One that was staged in this instant waits for the next time.
        Ok(bytes) if file::read_unfollowed(&places.staged, FILE).is_ok_and(|again| again != bytes) => Ok(true),
        Ok(_) => cleared(places).map(|()| true),
        Err(error) if error.passes() => Err(error),
        Err(error) => cleared(places).and(Err(error)),
    }
}

/// Writes the certificate for the owner and group of the present one, and for all whom that let read: an agent that could
/// not read its certificate any more would not start again. One that is in place already, from a promotion that was
/// interrupted, stays.
fn put(places: &Places, text: &str, now: OffsetDateTime) -> Result<(), PromoteError> {
    let Some(renewed) = successor(places, text, now)? else { return Ok(()) };
    let (owner, group, mode) = file::owner(&places.cert).map_err(PromoteError::Place)?;
    let mut access = Access::mode(0o640 | mode & 0o444);
    if user::is_root() {
        access = access.owner(owner).group(group);
    }
    file::write_atomic(&places.cert, renewed.to_pem().as_bytes(), access).map_err(PromoteError::Place)
}

/// The certificate that this text puts in the present one's place; nothing if it is the present one.
fn successor(places: &Places, text: &str, now: OffsetDateTime) -> Result<Option<Certificate>, PromoteError> {
    let present = Present::load(&places.cert, &places.key, &places.ca)?;
    if Certificate::from_pem(text).is_ok_and(|staged| staged == present.certificate) {
        return Ok(None);
    }
    Ok(Some(present.judge(text, now)?))
}

fn cleared(places: &Places) -> Result<(), PromoteError> {
    match file::remove(&places.staged) {
        Err(error) if !error.is_not_found() => Err(PromoteError::Place(error)),
        _ => Ok(()),
    }
}
