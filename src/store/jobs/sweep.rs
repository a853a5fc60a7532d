//! What is kept, and for how long: results for a day, and not more of them than fit the limit.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::{JobStatus, Jobs, Key, Part, StoreError};
use crate::sys::file::{self, FileError};
use crate::wire::name::{DispatcherId, RequestId};

/// How long a result is kept, as by the original.
pub const RETENTION: Duration = Duration::from_hours(24);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long after its end a job is forgotten.
    pub age: Duration,
    /// Bytes of all finished jobs together; the oldest go first. The newest keeps its record in any case.
    pub bytes: u64,
}

/// A finished job, as the sweep sees it.
struct Finished {
    key: Key,
    modified: SystemTime,
    bytes: u64,
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
            match self.look(key, now) {
                Ok(record) if record.as_ref().is_some_and(|record| record.status == JobStatus::Running) => {
                    return Ok(None);
                }
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
        let outputs = self.size(key, Part::Stdout)? + self.size(key, Part::Stderr)?;
        Ok(Some(Finished { key: key.clone(), modified: record.modified, bytes: record.size + outputs }))
    }

    /// Forgets the oldest until the rest is within the limit.
    fn shrink(&self, mut finished: Vec<Finished>, limit: u64) -> Result<(), StoreError> {
        finished.sort_by_key(|job| job.modified);
        let mut total: u64 = finished.iter().map(|job| job.bytes).sum();
        let newest = finished.pop();
        for job in &finished {
            if total <= limit {
                return Ok(());
            }
            self.forget(&job.key, job.modified)?;
            total = total.saturating_sub(job.bytes);
        }
        if let Some(job) = newest.filter(|_| total > limit) {
            let _store = self.lock()?;
            if !self.is_alive(&job.key)? {
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
            Ok(Some(record)) => record.status == JobStatus::Running,
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

    fn size(&self, key: &Key, part: Part) -> Result<u64, FileError> {
        Ok(file::facts(&self.path(key, part))?.map_or(0, |facts| facts.size))
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
