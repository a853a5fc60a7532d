//! Jobs whose end could not be put on record, for lack of room as a rule. Each question for one of them tries anew, and the log
//! is to have it once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::store::jobs::JobRecord;

/// Owner and request id of each.
#[derive(Debug, Default)]
pub struct Unrecorded(Mutex<BTreeSet<(String, String)>>);

impl Unrecorded {
    /// Most that are remembered; then all may be told once more.
    const MOST: usize = 10_000;

    /// Whether it is the first attempt for this job that has failed.
    pub(super) fn is_new(&self, job: &JobRecord) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert((job.owner.clone(), job.reqid.clone()))
    }

    /// It is on record, or forgotten.
    pub(super) fn forget(&self, job: &JobRecord) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(job.owner.clone(), job.reqid.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_new_once_until_it_is_on_record() {
        let jobs = Unrecorded::default();
        let job = |owner: &str| JobRecord::running("r", "s", owner, "2026-11-23T00:00:00Z");
        assert!(jobs.is_new(&job("a")) && jobs.is_new(&job("b")) && !jobs.is_new(&job("a")));
        jobs.forget(&job("a"));
        assert!(jobs.is_new(&job("a")) && !jobs.is_new(&job("b")));
    }
}
