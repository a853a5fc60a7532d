//! What is kept, and for how long: results for a day, and not more of them than fit the limit.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::settle::Settled;
use super::surplus::{Finished, Surplus, surplus};
use super::{JobStatus, Jobs, Kept, Key, Part, StoreError};
use crate::sys::file;
use crate::wire::name::{DispatcherId, RequestId};

/// How long a result is kept, as by the original.
pub const RETENTION: Duration = Duration::from_hours(24);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long after its end a job is forgotten.
    pub age: Duration,
    /// Bytes that all finished jobs have printed together; who has more than an equal share of them loses the oldest. The
    /// newest of each dispatcher keeps its record in any case.
    pub bytes: u64,
}

impl Jobs {
    /// Records the end of jobs that nobody has asked for, forgets those that are too old or too many, and removes what
    /// belongs to no job. A running job is never touched. What cannot be read or removed is passed over, and the first
    /// reason returned.
    pub fn sweep(&self, limits: Limits, now: SystemTime) -> Result<(), StoreError> {
        let mut first = Ok(());
        let mut note = |result: Result<(), StoreError>| {
            if first.is_ok() {
                first = result;
            }
        };
        for dir in self.directories()? {
            file::sweep(&dir);
        }
        let mut finished = Vec::new();
        for (key, parts) in self.entries()? {
            match self.visit(&key, &parts, limits.age, now) {
                Ok(found) => finished.extend(found),
                Err(error) => note(Err(error)),
            }
        }
        note(self.shrink(finished, limits.bytes));
        note(self.sweep_flat(limits.age, now));
        first
    }

    /// One job; returned if it is finished and stays for now.
    fn visit(&self, key: &Key, parts: &[Part], age: Duration, now: SystemTime) -> Result<Option<Finished>, StoreError> {
        if !parts.contains(&Part::Record) {
            return self.remove_orphan(key).map(|()| None);
        }
        if parts.contains(&Part::Status) || parts.contains(&Part::Cancel) {
            match self.look_open(key, now) {
                Ok(Some((record, _))) if record.status == JobStatus::Running => return Ok(None),
                Ok(Some((_, Kept::Beside(lengths)))) => return self.visit_unrecorded(key, lengths, age, now),
                // One that cannot be read is kept as long as any other.
                Ok(_) | Err(StoreError::Malformed { .. }) => {}
                Err(error) => return Err(error),
            }
            // A process that was killed in between had made the record and left these.
            let _store = self.lock()?;
            if !self.is_alive(key)? {
                self.remove_unfinished(key)?;
            }
        }
        let Some(record) = file::facts(&self.path(key, Part::Record))? else { return Ok(None) };
        if is_older(record.modified, age, now) {
            return self.forget(key, now).map(|()| None);
        }
        let [stdout, stderr] = [Part::Stdout, Part::Stderr].map(|part| file::facts(&self.path(key, part)));
        let (stdout, stderr) = (stdout?, stderr?);
        // Set when it was settled: others may have been settled before it that ended after it.
        let ended = stdout.map_or(record.modified, |stdout| stdout.modified);
        let outputs = [stdout, stderr].into_iter().flatten().map(|output| output.size).reduce(u64::saturating_add);
        Ok(Some(Finished { key: key.clone(), ended, outputs, record: record.size }))
    }

    /// One that has ended and has no record of it for lack of room. It is kept as long as any other.
    fn visit_unrecorded(
        &self,
        key: &Key,
        lengths: [u64; 2],
        age: Duration,
        now: SystemTime,
    ) -> Result<Option<Finished>, StoreError> {
        let [status, stdout] = [Part::Status, Part::Stdout].map(|part| file::facts(&self.path(key, part)));
        let times = [status?, stdout?].into_iter().flatten().map(|facts| facts.modified);
        let ended = times.max().unwrap_or(now);
        if is_older(ended, age, now) {
            return self.forget(key, now).map(|()| None);
        }
        let outputs = lengths.into_iter().reduce(u64::saturating_add);
        Ok(Some(Finished { key: key.clone(), ended, outputs, record: 0 }))
    }

    /// Forgets until the rest is within the limit.
    fn shrink(&self, finished: Vec<Finished>, limit: u64) -> Result<(), StoreError> {
        let Surplus { jobs, outputs } = surplus(finished, limit);
        for job in jobs {
            self.forget(&job.key, job.ended)?;
        }
        for job in outputs {
            let _store = self.lock()?;
            // Else there is no other copy.
            let recorded = self.read(&job.key)?.is_some_and(|record| record.status != JobStatus::Running);
            if recorded && !self.is_alive(&job.key)? {
                self.remove_part(&job.key, Part::Stdout)?;
                self.remove_part(&job.key, Part::Stderr)?;
            }
        }
        Ok(())
    }

    /// Forgets a job that is not, or no longer, running.
    pub(super) fn forget(&self, key: &Key, now: SystemTime) -> Result<(), StoreError> {
        let _store = self.lock()?;
        let runs = match self.settle(key, now) {
            Ok(Some(Settled { record, unrecorded })) => {
                // Now or never.
                if let Some((outcome, _)) = unrecorded {
                    self.witness(&record, outcome.as_ref());
                }
                record.status == JobStatus::Running
            }
            // A job that was found finished may have been replaced since, and a submission has its files before its
            // record. A record that cannot be read holds no result.
            Ok(None) | Err(StoreError::Malformed { .. }) => self.is_alive(key)?,
            Err(error) => return Err(error),
        };
        if runs { Ok(()) } else { self.remove(key) }
    }

    /// Removes files without a record, which a submission left that was killed.
    fn remove_orphan(&self, key: &Key) -> Result<(), StoreError> {
        let _store = self.lock()?;
        let has_record = file::facts(&self.path(key, Part::Record))?.is_some();
        if has_record || self.is_alive(key)? { Ok(()) } else { self.remove(key) }
    }

    /// Records directly in the directory, from before the original kept them by owner. Nobody can ask for them.
    fn sweep_flat(&self, age: Duration, now: SystemTime) -> Result<(), StoreError> {
        for name in list(&self.dir)? {
            let path = self.dir.join(&name);
            if path.extension().is_some_and(|end| end == "json")
                && file::facts(&path)?.is_some_and(|record| is_older(record.modified, age, now))
                && let Err(error) = file::remove(&path)
                && !error.is_not_found()
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Every job of which there is a file, with the files that there are.
    pub(super) fn entries(&self) -> Result<BTreeMap<Key, Vec<Part>>, StoreError> {
        let mut entries: BTreeMap<Key, Vec<Part>> = BTreeMap::new();
        for owner in list(&self.dir)?.iter().filter_map(|name| DispatcherId::parse(name).ok()) {
            for name in list(&self.dir.join(owner.as_str()))? {
                let Some((id, suffix)) = name.rsplit_once('.') else { continue };
                let part = Part::ALL.into_iter().find(|part| part.suffix() == suffix);
                if let (Ok(id), Some(part)) = (RequestId::parse(id), part) {
                    entries.entry(Key { owner: owner.clone(), id }).or_default().push(part);
                }
            }
        }
        Ok(entries)
    }

    fn directories(&self) -> Result<Vec<std::path::PathBuf>, StoreError> {
        let owners = list(&self.dir)?.into_iter().filter(|name| DispatcherId::parse(name).is_ok());
        Ok(owners.map(|name| self.dir.join(name)).filter(|path| path.is_dir()).collect())
    }
}

/// A time in the future counts as now.
fn is_older(modified: SystemTime, age: Duration, now: SystemTime) -> bool {
    now.duration_since(modified).is_ok_and(|passed| passed > age)
}

/// The names in a directory that are text; none where there is no directory.
fn list(dir: &std::path::Path) -> Result<Vec<String>, StoreError> {
    match file::list_dir(dir) {
        Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
        Err(error) if error.is_not_found() || error.kind() == std::io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
