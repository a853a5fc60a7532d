//! How many jobs there are, without reading what they have printed.

use std::time::SystemTime;

use super::{JobStatus, Jobs, Part, StoreError};

/// How many jobs are on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Whose script runs.
    pub running: usize,
    /// Whose end is on record, and kept.
    pub ended: usize,
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
            let unsettled = parts.contains(&Part::Status);
            let ended = || match self.look(&key, now) {
                Ok(record) => record.is_none_or(|record| record.status != JobStatus::Running),
                Err(_) => false,
            };
            if unsettled && (self.is_alive(&key).unwrap_or(true) || !ended()) {
                census.running += 1;
            } else {
                census.ended += 1;
            }
        }
        Ok(census)
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
