//! From a job that has ended to its final record.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Adviser, JobRecord, JobStatus, Jobs, Key, Part, StoreError, TAIL, Witness};
use crate::sys::file::{self, FileError};
use crate::wire::limits;
use crate::wire::name::ScriptName;
use crate::wire::outcome::Outcome;
use crate::wire::run::Output;
use crate::wire::stamp;
use crate::wire::stream::Channel;

impl Jobs {
    /// A job's record, without output. If the job has ended since somebody last asked, that is on record now. `None` where
    /// there is no such job.
    pub fn look(&self, key: &Key, now: SystemTime) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.look_open(key, now)?.map(|(record, _)| record))
    }

    /// The same, and the record as it stands on file, which no later one changes.
    pub fn look_open(&self, key: &Key, now: SystemTime) -> Result<Option<(JobRecord, File)>, StoreError> {
        let found = self.read_open(key)?;
        if found.as_ref().is_none_or(|(record, _)| record.status != JobStatus::Running) || self.is_alive(key)? {
            return Ok(found);
        }
        let store = self.lock()?;
        self.settle(key, now)?;
        drop(store);
        self.read_open(key)
    }

    /// As [`Jobs::look`], under the store's lock.
    pub(super) fn settle(&self, key: &Key, now: SystemTime) -> Result<Option<JobRecord>, StoreError> {
        let Some(record) = self.read(key)? else { return Ok(None) };
        if record.status != JobStatus::Running || self.is_alive(key)? || self.is_alive_original(key, &record)? {
            return Ok(Some(record));
        }
        let outcome = self.outcome(key)?;
        let finished = match (&outcome, file::facts(&self.path(key, Part::Status))?) {
            (Some(_), Some(facts)) => facts.modified,
            _ => now,
        };
        // Its monitor has cut both then, wherever the limit fell.
        let cut = matches!(outcome, Some(Outcome::OutputLimit { .. }));
        let (stdout, stderr) = (self.head(key, Channel::Stdout, cut)?, self.head(key, Channel::Stderr, cut)?);
        let record = record.ended(outcome.as_ref(), utc(finished), stdout, stderr);
        let record = JobRecord { hint: self.advice(key, &record)?, ..record };
        self.write(key, &record)?;
        self.remove_part(key, Part::Status)?;
        self.remove_part(key, Part::Cancel)?;
        if let Some(Witness(tell)) = &self.witness {
            tell(&record, outcome.as_ref());
        }
        Ok(Some(record.without_output()))
    }

    /// What the monitor wrote, if it came to that. A line that is not whole is none.
    fn outcome(&self, key: &Key) -> Result<Option<Outcome>, StoreError> {
        match file::read_bounded(&self.path(key, Part::Status), limits::REPORT) {
            Ok(line) => Ok(line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What may be advised about a job that has ended.
    fn advice(&self, key: &Key, record: &JobRecord) -> Result<Option<String>, StoreError> {
        let Some(Adviser(advise)) = &self.adviser else { return Ok(None) };
        // Also -1 is no failure of the script: nobody knows how it ended.
        if record.exit.is_none_or(|exit| exit <= 0) {
            return Ok(None);
        }
        let Some(file) = self.output(key, Channel::Stderr)? else { return Ok(None) };
        let fail = |source| FileError::new(&self.path(key, Part::Stderr), "read", source);
        let mut bytes = vec![0; TAIL];
        let size = file.metadata().map_err(fail)?.len();
        let from = size.saturating_sub(u64::try_from(TAIL).unwrap_or(u64::MAX));
        let filled = file.read_at(&mut bytes, from).map_err(fail)?;
        bytes.truncate(filled);
        Ok(advise(&record.script, &bytes))
    }

    /// The beginning of an output, as much of it as a record keeps. What was `cut` may end in the middle of a character.
    fn head(&self, key: &Key, channel: Channel, cut: bool) -> Result<Output, StoreError> {
        let Some(file) = self.output(key, channel)? else { return Ok(Output::default()) };
        let fail = |source| FileError::new(&self.path(key, Part::of(channel)), "read", source);
        let mut bytes = Vec::new();
        (&file).take(self.most).read_to_end(&mut bytes).map_err(fail)?;
        let more = (&file).read(&mut [0]).map_err(fail)? > 0;
        Ok(Output::of(bytes, more || cut))
    }

    /// Whether the original's process of a job without a status file lives: it holds its script's lock, unless that is
    /// held by a job of ours.
    fn is_alive_original(&self, key: &Key, record: &JobRecord) -> Result<bool, StoreError> {
        let ours = file::facts(&self.path(key, Part::Status))?.is_some();
        if ours || ScriptName::parse(&record.script).is_err() {
            return Ok(false);
        }
        let held = file::is_locked(&self.script_lock(&record.script))? == Some(true);
        Ok(held && !self.runs(&record.script)?)
    }

    /// Whether a job of ours runs this script.
    fn runs(&self, script: &str) -> Result<bool, StoreError> {
        for (key, parts) in self.entries()? {
            if parts.contains(&Part::Status)
                && self.is_alive(&key)?
                && self.read(&key)?.is_some_and(|record| record.script == script)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn utc(at: SystemTime) -> String {
    stamp::utc(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
