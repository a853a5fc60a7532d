//! Where output goes that is too large to be kept in memory by hundreds of runs at once: a file without a name for each,
//! beside the results of jobs, which are as large. Where no file can be had, memory, of which all of them share a certain
//! amount.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::excerpt::{Charge, Excerpt, Source};
use crate::store::jobs::DIR_MODE;
use crate::sys::file::{self, FileError};

/// The file of one run, made when it is needed.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    file: OnceLock<Option<Arc<Source>>>,
    /// Why there is none, or why it takes no more.
    failed: OnceLock<FileError>,
}

impl Spool {
    /// One in this directory, which need not exist yet.
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, file: OnceLock::new(), failed: OnceLock::new() }
    }

    /// Writes all of these at a place; whether that was possible. It waits for the disk.
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> bool {
        let source = self.file.get_or_init(|| self.make().map_err(|error| self.fail(error)).ok());
        let Some(Source::File(file)) = source.as_deref() else { return false };
        let written = file.write_all_at(bytes, at);
        written.map_err(|error| self.fail(FileError::new(&self.dir, "write output in", error))).is_ok()
    }

    fn make(&self) -> Result<Arc<Source>, FileError> {
        file::create_dir(&self.dir, DIR_MODE)?;
        file::nameless(&self.dir).map(|file: File| Arc::new(Source::File(file)))
    }

    fn fail(&self, error: FileError) {
        // The first reason is the one.
        drop(self.failed.set(error));
    }

    /// Keeps these, and nothing else.
    ///
    /// # Errors
    /// There is neither a file nor memory for them.
    pub(super) fn keep(self, bytes: Vec<u8>) -> Result<Excerpt, FileError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut charge = Charge::default();
        match Some(()).filter(|()| self.write(&bytes, 0)).and_then(|()| self.source()) {
            Some(source) => Ok(Excerpt::of(source, 0, length)),
            None if charge.grow(bytes.len()) => Ok(Excerpt::held(bytes, charge)),
            None => {
                let none = || FileError::new(&self.dir, "keep an answer in", io::ErrorKind::OutOfMemory.into());
                Err(self.failed.into_inner().unwrap_or_else(none))
            }
        }
    }

    /// What was written, if anything could be.
    pub(super) fn source(&self) -> Option<Arc<Source>> {
        self.file.get().cloned().flatten()
    }

    /// Why something could not be.
    pub(super) fn failure(&self) -> Option<&FileError> {
        self.failed.get()
    }
}
