//! Changes to the trust map's file.
//!
//! **Invariant:** every change reads and writes under the lock of the file's directory, so that pairing and the serving
//! agent never undo each other. The map is added to, never replaced: a file that is there and cannot be read is an
//! error, not an empty map, and a line of it that means nothing stays as it is. Whoever wrote it meant something.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use crate::agent::list_file;
use crate::pki::trust::TrustMap;
use crate::sys::file::{self, Access, FileError};

/// A trust map that was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustFileError {
    /// The file system refused.
    #[error("the trust map cannot be changed")]
    File(#[from] FileError),
    /// The file has NUL bytes, as a text in UTF-16 has: what is added in ASCII could be read by nobody who wrote it.
    #[error("the trust map {} holds NUL bytes and was not changed: save it as plain text in UTF-8, one '<serial> <dispatcher id>' \
             a line", .0.display())]
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
    let bytes = list_file::read(path)?;
    let present = bytes.as_deref().unwrap_or_default();
    if present.contains(&0) {
        return Err(TrustFileError::NotText(path.to_owned()));
    }
    let (mut map, _) = TrustMap::parse(&list_file::text(present));
    let before = map.clone();
    if let Err(refused) = change(&mut map) {
        return Ok(Err(refused));
    }
    if map != before || bytes.is_none() {
        file::write_atomic(path, &map.put_into(present), Access::public())?;
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
