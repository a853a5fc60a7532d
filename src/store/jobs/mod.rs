//! The agent's detached jobs, in the original's directory: `<owner>/<request id>.json` is a job's record.
//!
//! Beside the record lie, under the same name, `.stdout` and `.stderr`, which the script writes; `.status`, where the
//! executor's monitor writes the one outcome; and `.cancel`, a FIFO that it listens to. The monitor holds the lock of
//! `.status` and of `.locks/<script>.lock` (as the original's jobs do), and the kernel releases both at its death; but for those
//! that the executor's service holds, too, until nobody is left of what the monitor had started.
//!
//! Room for that one outcome is set aside before the job may print anything: a job that fills the disk costs its record, until
//! there is room again, and not its end.
//!
//! So nobody has to be there when a job ends. Whoever asks next finds the lock free and makes the final record of what
//! the status file says; or, where it says nothing, of the fact that nobody will ever know.
//!
//! **Invariant:** files come and go, and records change, only under the store's own lock, or under that of the job's
//! `.status`. A record that says `running` is on the disk before the order for its job is given; so that whatever is
//! killed at whatever moment, there is either no record and no job, or a record that becomes `done` or `lost`.

mod alive;
mod census;
mod record;
mod settle;
mod surplus;
mod sweep;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use census::Census;
pub use record::{JobRecord, JobStatus};
pub use settle::Kept;
pub use sweep::{Limits, RETENTION};

use serde::de::IgnoredAny;

use self::settle::Settled;
use super::StoreError;
use crate::sys::file::{self, Access, FileError, Identity, LockGuard};
use crate::sys::process::Family;
use crate::wire::name::{DispatcherId, RequestId, ScriptName};
use crate::wire::outcome::Noted;
use crate::wire::stream::Channel;

/// Results may hold secrets: the agent's account and its group.
const MODE: u32 = 0o640;
/// Mode of the directory and of its owners' in it.
pub const DIR_MODE: u32 = 0o750;
/// How much of the end of a failed job's standard error is looked at for advice, in bytes.
pub const TAIL: usize = 64 * 1024;
/// Room for an outcome, in bytes: no report is longer ([`crate::wire::limits::REPORT`]).
const OUTCOME: u32 = 64 * 1024;
/// Largest record read, in bytes: the original did not cut its outputs.
const RECORD: usize = 1 << 30;
/// So many bytes of it at a time.
const READ: usize = 64 * 1024;

/// How long a script's lock is waited for that no job has: longer than a process that was forked takes to run its program, or
/// one that was killed to be gone. And the time between two looks.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// The directory of jobs.
#[derive(Clone, Debug)]
pub struct Jobs {
    dir: PathBuf,
    /// Bytes of each output stream that a record keeps.
    most: u64,
    family: Option<Family>,
    witness: Option<Witness>,
    adviser: Option<Adviser>,
}

/// Told of every job's end, once, when it goes on record; and of each attempt to put it there that fails.
#[derive(Clone)]
pub struct Witness {
    ended: Arc<TellEnd>,
    unrecorded: Arc<TellFault>,
}

type TellEnd = dyn Fn(&JobRecord, Option<&Noted>) + Send + Sync;
type TellFault = dyn Fn(&JobRecord, &StoreError) + Send + Sync;

impl Witness {
    /// One that does this. Without what its monitor noted: how the job ended nobody will ever know.
    pub fn new(
        ended: impl Fn(&JobRecord, Option<&Noted>) + Send + Sync + 'static,
        unrecorded: impl Fn(&JobRecord, &StoreError) + Send + Sync + 'static,
    ) -> Self {
        Self { ended: Arc::new(ended), unrecorded: Arc::new(unrecorded) }
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

/// Asked for advice about every job that has ended and failed, by its script's name and the end of what that has printed
/// to its standard error ([`TAIL`]).
#[derive(Clone)]
pub struct Adviser(Arc<Advise>);

type Advise = dyn Fn(&str, &[u8]) -> Option<String> + Send + Sync;

impl Adviser {
    /// One that advises so.
    pub fn new(advise: impl Fn(&str, &[u8]) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(advise))
    }
}

impl fmt::Debug for Adviser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Adviser")
    }
}

/// Whose job, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The dispatcher that submitted it.
    pub owner: DispatcherId,
    /// Its request id.
    pub id: RequestId,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Submission {
    /// The record stands, and the order may be given.
    Accepted(NewJob),
    /// A job of the same script runs.
    Busy,
    /// A job of the same request id runs.
    InUse,
}

/// What the monitor of an accepted job gets. **Invariant:** closed here as soon as the order has left, so that the
/// locks are the monitor's alone.
#[derive(Debug)]
pub struct NewJob {
    /// For standard output.
    pub stdout: File,
    /// For standard error.
    pub stderr: File,
    /// For the outcome; locked.
    pub status: LockGuard,
    /// The script's lock.
    pub lock: LockGuard,
    /// A byte in it cancels.
    pub cancel: OwnedFd,
}

/// The files of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Record,
    Stdout,
    Stderr,
    Status,
    Cancel,
    /// Empty, and there where the record means [`JobStatus::Lost`]: so those are counted without reading a record.
    Lost,
}

impl Part {
    /// The record goes first: what is left without one is swept.
    const ALL: [Self; 6] = [Self::Record, Self::Stdout, Self::Stderr, Self::Status, Self::Cancel, Self::Lost];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Record => "json",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Status => "status",
            Self::Cancel => "cancel",
            Self::Lost => "lost",
        }
    }

    const fn of(channel: Channel) -> Self {
        match channel {
            Channel::Stdout => Self::Stdout,
            Channel::Stderr => Self::Stderr,
        }
    }
}

impl Jobs {
    /// The jobs in this directory, which need not exist yet. A record keeps `most` bytes of each output stream.
    #[must_use]
    pub const fn new(dir: PathBuf, most: u64) -> Self {
        Self { dir, most, family: None, witness: None, adviser: None }
    }

    /// The same, where the processes of runs are known by their marks.
    #[must_use]
    pub fn marked(self, family: Option<Family>) -> Self {
        Self { family, ..self }
    }

    /// The same, with somebody to tell of each job's end.
    #[must_use]
    pub fn witnessed(self, witness: Witness) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same, with somebody to ask for advice about jobs that have failed.
    #[must_use]
    pub fn advised(self, adviser: Adviser) -> Self {
        Self { adviser: Some(adviser), ..self }
    }

    /// Whether jobs could be put here by this process. Nothing is made.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn check(&self) -> Result<(), StoreError> {
        file::could_fill_dir(&self.dir)?;
        Ok(file::could_fill_dir(&self.dir.join(".locks"))?)
    }

    /// Accepts a job that starts `now`, unless its script or its request id is busy. A finished job of the same owner and id
    /// is replaced, as by the original; where nobody has asked for its end yet, that is told first.
    ///
    /// # Errors
    /// Among others, there is no room for its files. Nothing is left of it then.
    pub fn submit(&self, key: &Key, script: &ScriptName, now: SystemTime) -> Result<Submission, StoreError> {
        let until = Instant::now() + PATIENCE;
        let (store, lock) = loop {
            let store = self.lock()?;
            file::create_dir(&self.dir.join(key.owner.as_str()), DIR_MODE)?;
            if self.is_alive(key)? {
                return Ok(Submission::InUse);
            }
            let lock = file::try_lock_exclusive(&self.script_lock(script.as_str()), MODE)?;
            // It may be free, and processes of the run be there.
            let runs = if lock.is_none() || !self.members().is_empty() { self.runs(script.as_str())? } else { false };
            if let Some(lock) = lock.filter(|_| !runs) {
                break (store, lock);
            }
            // Who has heard of a job's end may submit the next one before the last process has let go of the lock that the
            // job's monitor was killed with, or that was forked with it.
            if runs || Instant::now() >= until {
                return Ok(Submission::Busy);
            }
            drop(store);
            std::thread::sleep(PAUSE);
        };
        self.replace(key, now)?;
        let job = self.files(key, lock).inspect_err(|_| drop(self.remove(key)))?;
        // From here on the job's own lock keeps others away, and they need not wait for the disk.
        drop(store);
        let record = JobRecord::running(key.id.as_str(), script.as_str(), key.owner.as_str(), &settle::utc(now));
        match self.write(key, &record) {
            Ok(()) => Ok(Submission::Accepted(job)),
            Err(error) => {
                // What cannot be taken back belongs to no job, and is swept.
                drop(self.discard(key, &job.stdout));
                Err(error)
            }
        }
    }

    /// Makes place for another job of the same owner and id, under the store's lock.
    fn replace(&self, key: &Key, now: SystemTime) -> Result<(), StoreError> {
        match self.settle(key, now) {
            // Now or never.
            Ok(Some(Settled { record, unrecorded: Some((outcome, _)) })) => self.witness(&record, outcome.as_ref()),
            Ok(_) | Err(StoreError::Malformed { .. }) => {}
            Err(error) => return Err(error),
        }
        self.remove(key)
    }

    fn files(&self, key: &Key, lock: LockGuard) -> Result<NewJob, StoreError> {
        let status = self.path(key, Part::Status);
        let job = NewJob {
            stdout: file::append_new(&self.path(key, Part::Stdout), MODE)?,
            stderr: file::append_new(&self.path(key, Part::Stderr), MODE)?,
            // The file is new: nobody can have it but who looks whether it is locked.
            status: file::lock_exclusive(&status, MODE)?,
            lock,
            cancel: file::make_fifo(&self.path(key, Part::Cancel))?,
        };
        file::reserve(&job.status, &status, OUTCOME)?;
        Ok(job)
    }

    /// Forgets a job that was accepted and never carried out, known by its standard output. One that was submitted under its
    /// request id since then stays.
    pub fn discard(&self, key: &Key, stdout: &File) -> Result<(), StoreError> {
        let _store = self.lock()?;
        let path = self.path(key, Part::Stdout);
        let fail = |source| FileError::new(&path, "examine", source);
        match Identity::of(&path) {
            Ok(found) if found == Identity::of_opened(stdout).map_err(fail)? => self.remove(key),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(fail(error).into()),
        }
    }

    /// Asks a job to end; whether anybody heard it. One that nobody hears has ended.
    pub fn cancel(&self, key: &Key) -> Result<bool, StoreError> {
        Ok(file::nudge(&self.path(key, Part::Cancel))?)
    }

    /// What the script has printed so far, to be read at any place; `None` where that is not, or no longer, on file.
    pub fn output(&self, key: &Key, channel: Channel) -> Result<Option<File>, StoreError> {
        let path = self.path(key, Part::of(channel));
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError::new(&path, "open", source).into()),
        }
    }

    /// The record with everything that it keeps of what the script has printed, in memory. `None` where there is none.
    pub fn whole(&self, key: &Key) -> Result<Option<JobRecord>, StoreError> {
        let path = self.path(key, Part::Record);
        match file::read_bounded(&path, RECORD) {
            Ok(bytes) => {
                let read: Result<JobRecord, _> = serde_json::from_slice(&bytes);
                read.map(|record| Some(record.as_meant())).map_err(|source| StoreError::Malformed { path, source })
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&self, key: &Key) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.read_open(key)?.map(|(record, _)| record))
    }

    /// The record without output, which may be more than fits into memory, and its file.
    fn read_open(&self, key: &Key) -> Result<Option<(JobRecord, File)>, StoreError> {
        let path = self.path(key, Part::Record);
        let file = match file::open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let read: Result<JobRecord<IgnoredAny>, _> =
            serde_json::from_reader(BufReader::with_capacity(READ, (&file).take(RECORD as u64)));
        match read {
            Ok(record) => Ok(Some((record.without_output(), file))),
            Err(error) if error.is_io() => Err(FileError::new(&path, "read", error.into()).into()),
            Err(source) => Err(StoreError::Malformed { path, source }),
        }
    }

    fn write(&self, key: &Key, record: &JobRecord) -> Result<(), StoreError> {
        let path = self.path(key, Part::Record);
        let text = serde_json::to_vec(record).map_err(|source| StoreError::Malformed { path: path.clone(), source })?;
        Ok(file::write_atomic(&path, &text, Access::mode(MODE))?)
    }

    fn remove(&self, key: &Key) -> Result<(), StoreError> {
        Part::ALL.into_iter().try_for_each(|part| self.remove_part(key, part))
    }

    /// Removes what only a job has that is under way. The status goes last: while it is there, whoever is killed in between has
    /// left something that is looked for.
    fn remove_unfinished(&self, key: &Key) -> Result<(), StoreError> {
        self.remove_part(key, Part::Cancel)?;
        self.remove_part(key, Part::Status)
    }

    fn remove_part(&self, key: &Key, part: Part) -> Result<(), StoreError> {
        match file::remove(&self.path(key, part)) {
            Err(error) if error.is_not_found() => Ok(()),
            other => Ok(other?),
        }
    }

    /// **Invariant:** never held while waiting for anything but the disk.
    fn lock(&self) -> Result<LockGuard, StoreError> {
        file::create_dir(&self.dir, DIR_MODE)?;
        file::create_dir(&self.dir.join(".locks"), DIR_MODE)?;
        // Neither a script's name nor, therefore, its lock begins with a dot.
        Ok(file::lock_exclusive(&self.dir.join(".locks/.store"), MODE)?)
    }

    fn script_lock(&self, script: &str) -> PathBuf {
        self.dir.join(".locks").join(format!("{script}.lock"))
    }

    fn path(&self, key: &Key, part: Part) -> PathBuf {
        self.dir.join(key.owner.as_str()).join(format!("{}.{}", key.id, part.suffix()))
    }
}
