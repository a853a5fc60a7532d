//! Registry, pairing queue, runs and jobs: plain files in the original's formats, replaced atomically, changed only under a
//! lock.

pub mod jobs;
mod loose;
pub mod queue;
pub mod record;
pub mod registry;
pub mod runs;

use std::io;
use std::path::PathBuf;

use crate::sys::file::FileError;

/// A stored file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot use the store")]
    File(#[from] FileError),
    /// The file is not what it should be.
    #[error("{} is not a valid record", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl StoreError {
    /// Whether the cause is missing permission, where the remedy is another user or group.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(self, Self::File(error) if error.is_permission_denied())
    }

    /// Whether the cause is that the disk, or this user's part of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = |kind| matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        matches!(self, Self::File(error) if full(error.kind()))
    }
}

/// Largest record read, in bytes. The original's are under 2 KiB; a queue entry carries a certificate request.
const RECORD: usize = 1024 * 1024;
