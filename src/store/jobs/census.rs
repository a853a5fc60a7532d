//! How many jobs there are, without reading what they have printed.

use std::time::SystemTime;

use super::{JobStatus, Jobs, Key, Part, StoreError};

/// How many jobs are on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Whose script runs.
    pub running: usize,
    /// Whose end is on record, and kept.
    pub done: usize,
    /// The same, where nobody will ever know how they ended.
    pub lost: usize,
}

impl Jobs {
    /// Counts the jobs by the names of their files. Only one that has ended since somebody last asked is read, and its
    /// end goes on record now. Which of them cannot be judged counts as running: something of it is left to be done.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn census(&self, now: SystemTime) -> Result<Census, StoreError> {
        let mut census = Census::default();
        for (key, parts) in self.entries()? {
            if !parts.contains(&Part::Record) {
                continue;
            }
            match self.state(&key, &parts, now) {
                JobStatus::Running => census.running += 1,
                JobStatus::Done => census.done += 1,
                JobStatus::Lost => census.lost += 1,
            }
        }
        Ok(census)
    }

    fn state(&self, key: &Key, parts: &[Part], now: SystemTime) -> JobStatus {
        let settled = if parts.contains(&Part::Lost) { JobStatus::Lost } else { JobStatus::Done };
        if !parts.contains(&Part::Status) {
            return settled;
        }
        if self.is_alive(key).unwrap_or(true) {
            return JobStatus::Running;
        }
        self.look(key, now).map_or(JobStatus::Running, |record| record.map_or(settled, |record| record.status))
    }

    /// How many monitors of jobs live now. Nothing is recorded on the way, whoever asks.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn alive(&self) -> Result<usize, StoreError> {
        let unsettled = self.entries()?.into_iter().filter(|(_, parts)| parts.contains(&Part::Status));
        let alive = unsettled.map(|(key, _)| self.is_alive(&key)).filter(|alive| !matches!(alive, Ok(false)));
        alive.map(|alive| alive.map(usize::from)).sum()
    }
}
