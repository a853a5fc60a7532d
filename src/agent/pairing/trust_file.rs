//! Changes to the trust map's file.
//!
//! **Invariant:** every change reads and writes under the lock of the file's directory, so that pairing and the serving
//! agent never undo each other. The map is added to, never replaced: a file that is there and cannot be read is an
//! error, not an empty map.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use crate::pki::trust::TrustMap;
use crate::sys::file::{self, Access, FileError};

/// Largest trust map, in bytes.
const MAP: usize = 8 * 1024 * 1024;

/// A trust map that was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// The file system refused.
    #[error("the trust map cannot be changed")]
    File(#[from] FileError),
    /// The file is no text.
    #[error("the trust map {} is not text: move it away, and pair with every dispatcher again", .0.display())]
    NotText(PathBuf),
}

/// Changes the map. Writes nothing where the change changes nothing.
pub fn update(path: &Path, change: impl FnOnce(&mut TrustMap)) -> Result<TrustMap, TrustFileError> {
    let always = |map: &mut TrustMap| {
        change(map);
        Ok::<_, Infallible>(())
    };
    try_update(path, always).map(|Ok(map)| map)
}

/// The same for a change that may be refused by what the map holds; the inner error is the change's own.
pub fn try_update<E>(
    path: &Path,
    change: impl FnOnce(&mut TrustMap) -> Result<(), E>,
) -> Result<Result<TrustMap, E>, TrustFileError> {
    let _lock = file::lock_directory(path.parent().unwrap_or(Path::new("/")))?;
    let text = match file::read_bounded(path, MAP) {
        Ok(bytes) => Some(String::from_utf8(bytes).map_err(|_| TrustFileError::NotText(path.to_owned()))?),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    // A line that makes no sense trusts nobody, whether it stays or goes.
    let (mut map, _) = TrustMap::parse(text.as_deref().unwrap_or_default());
    let before = map.clone();
    if let Err(refused) = change(&mut map) {
        return Ok(Err(refused));
    }
    if map != before || text.is_none() {
        file::write_atomic(path, map.to_text().as_bytes(), Access::public())?;
    }
    Ok(Ok(map))
}

/// Makes a map where there is none; `false` where something has its name already.
pub fn create(path: &Path, map: &TrustMap) -> Result<bool, TrustFileError> {
    let _lock = file::lock_directory(path.parent().unwrap_or(Path::new("/")))?;
    match file::write_new(path, map.to_text().as_bytes(), Access::public()) {
        Ok(()) => Ok(true),
        Err(error) if error.is_already_there() => Ok(false),
        Err(error) => Err(error.into()),
    }
}
