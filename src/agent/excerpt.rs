//! What a script has printed, wherever it is: on file, in the record of a job, or in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::store::StoreError;
use crate::store::jobs::{Jobs, Key};
use crate::sys::file::FileError;
use crate::wire::stream::{Channel, whole_characters};

/// Most bytes of output that this process keeps in memory for lack of a place on disk.
const MOST: usize = 256 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// A file of which nobody needs to know more.
const OUTPUT: &str = "what a script has printed";

/// Where an output is: on file, or in the record of a job of the original's.
#[derive(Debug)]
pub(super) enum Source {
    /// As the script writes it.
    File(File),
    /// As it was recorded.
    Recorded(Vec<u8>),
}

impl Source {
    pub(super) fn open(jobs: &Jobs, key: &Key, channel: Channel) -> Result<Self, StoreError> {
        if let Some(file) = jobs.output(key, channel)? {
            return Ok(Self::File(file));
        }
        let Some(record) = jobs.whole(key)? else { return Ok(Self::Recorded(Vec::new())) };
        let (text, base64) = match channel {
            Channel::Stdout => (record.stdout, record.stdout_base64),
            Channel::Stderr => (record.stderr, record.stderr_base64),
        };
        let exact = base64.and_then(|text| STANDARD.decode(text).ok());
        Ok(Self::Recorded(exact.unwrap_or_else(|| text.unwrap_or_default().into_bytes())))
    }
}

impl Source {
    /// How many bytes there are now.
    pub(super) fn length(&self) -> Result<u64, StoreError> {
        match self {
            Self::Recorded(bytes) => Ok(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::File(file) => {
                let facts = file.metadata();
                facts
                    .map(|facts| facts.len())
                    .map_err(|error| FileError::new(Path::new(OUTPUT), "examine", error).into())
            }
        }
    }
}

/// At most `most` bytes from a place on; none at the end.
pub(super) fn read(source: &Source, from: u64, most: usize) -> Result<Vec<u8>, StoreError> {
    match source {
        Source::Recorded(bytes) => {
            let from = usize::try_from(from).unwrap_or(usize::MAX);
            Ok(bytes.iter().skip(from).take(most).copied().collect())
        }
        // Behind every end: the kernel counts files in signed numbers, and calls more a fault (pread(2)).
        Source::File(_) if i64::try_from(from.saturating_add(u64::try_from(most).unwrap_or(u64::MAX))).is_err() => {
            Ok(Vec::new())
        }
        Source::File(file) => {
            let mut bytes = vec![0; most];
            let mut filled = 0;
            while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
                let place = from.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
                match file.read_at(room, place) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        return Err(FileError::new(Path::new(OUTPUT), "read", error).into());
                    }
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        }
    }
}

/// Bytes that wait to be told.
#[derive(Clone, Debug)]
pub(super) struct Excerpt {
    source: Arc<Source>,
    from: u64,
    length: u64,
    /// What it takes of the process's memory.
    _charge: Option<Arc<Charge>>,
}

impl Excerpt {
    /// So many of a source, from a place on.
    pub(super) const fn of(source: Arc<Source>, from: u64, length: u64) -> Self {
        Self { source, from, length, _charge: None }
    }

    /// All of these, which count among the process's.
    pub(super) fn held(bytes: Vec<u8>, charge: Charge) -> Self {
        let length = size(bytes.len());
        Self { source: Arc::new(Source::Recorded(bytes)), from: 0, length, _charge: Some(Arc::new(charge)) }
    }

    /// How many.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The same without a character that was cut in its middle.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn whole_characters(self) -> Result<Self, StoreError> {
        let last = self.length.min(3);
        let bytes = read(&self.source, self.from + (self.length - last), usize::try_from(last).unwrap_or(0))?;
        let cut = bytes.len() - whole_characters(&bytes);
        Ok(Self { length: self.length - size(cut), ..self })
    }

    /// Some of it; none where the place is behind its end.
    pub(super) fn read(&self, at: u64, most: usize) -> Result<Vec<u8>, StoreError> {
        let left = self.length.saturating_sub(at);
        read(&self.source, self.from.saturating_add(at), most.min(usize::try_from(left).unwrap_or(usize::MAX)))
    }
}

/// Bytes that count among those which the process keeps in memory, until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Charge(usize);

impl Charge {
    /// Counts so many more; or says that there are too many.
    pub(super) fn grow(&mut self, by: usize) -> bool {
        let more = |held: usize| held.checked_add(by).filter(|held| *held <= MOST);
        let fits = HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        self.0 += if fits { by } else { 0 };
        fits
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        HELD.fetch_sub(self.0, Ordering::Relaxed);
    }
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::sync::Mutex;

    use super::*;

    /// For a test that takes so much of this process's memory for outputs that others would notice.
    pub(in crate::agent) static MEMORY: Mutex<()> = Mutex::const_new(());

    #[test]
    fn what_is_asked_for_behind_every_end_is_nothing_and_no_fault() {
        let file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut &file, b"abc").unwrap();
        for source in [Source::File(file), Source::Recorded(b"abc".to_vec())] {
            for (from, expected) in [(2, "c"), (3, ""), (1 << 62, ""), (i64::MAX as u64, ""), (u64::MAX, "")] {
                assert_eq!(read(&source, from, 10).unwrap(), expected.as_bytes(), "{from}");
            }
        }
    }

    #[test]
    fn memory_in_place_of_a_disk_has_an_end_and_is_given_back() {
        let _alone = MEMORY.blocking_lock();
        let mut charge = Charge::default();
        assert!(!charge.grow(MOST + 1) && !charge.grow(usize::MAX));
        assert!(charge.grow(MOST / 2));
        assert!(!Charge::default().grow(MOST / 2 + 1));
        drop(charge);
        assert!(Charge::default().grow(MOST / 2 + 1));
    }
}
