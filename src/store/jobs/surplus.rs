//! Which finished jobs are too many. Pure.
//!
//! What counts is what a job has printed. That a record tells it once more, as JSON and so in up to eight times the room, is
//! the form's cost and not the job's: counted, it would cost others their results.
//!
//! **Invariant:** a dispatcher that takes no more than an equal share of the limit loses nothing, whatever others print.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Key;
use crate::wire::name::DispatcherId;

/// What a job counts for beside what it has printed: hundreds of thousands that print nothing fill a disk as well.
const ENTRY: u64 = 4096;

/// A finished job, as the sweep sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) key: Key,
    /// When it ended.
    pub(super) ended: SystemTime,
    /// Bytes of what it has printed, if that is on file outside of the record.
    pub(super) outputs: Option<u64>,
    /// Bytes of its record.
    pub(super) record: u64,
}

impl Finished {
    fn bytes(&self) -> u64 {
        self.outputs.unwrap_or(self.record).saturating_add(ENTRY)
    }
}

/// What is to be forgotten.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// Jobs as a whole.
    pub(super) jobs: Vec<Finished>,
    /// What these have printed, outside of their records.
    pub(super) outputs: Vec<Finished>,
}

/// The jobs of one dispatcher that are kept.
#[derive(Default)]
struct Kept {
    /// The oldest last.
    jobs: Vec<Finished>,
    bytes: u64,
}

impl Kept {
    fn oldest(&self) -> Option<SystemTime> {
        self.jobs.last().map(|job| job.ended)
    }
}

/// What has to go for the rest to be within `limit`: of dispatchers that have more than an equal share, the jobs that ended
/// first; and where only their newest are left, what those have printed.
pub(super) fn surplus(mut finished: Vec<Finished>, limit: u64) -> Surplus {
    finished.sort_by_key(|job| Reverse(job.ended));
    let mut total: u64 = finished.iter().map(Finished::bytes).fold(0, u64::saturating_add);
    let mut owners: BTreeMap<DispatcherId, Kept> = BTreeMap::new();
    for job in finished {
        let kept = owners.entry(job.key.owner.clone()).or_default();
        kept.bytes = kept.bytes.saturating_add(job.bytes());
        kept.jobs.push(job);
    }
    let share = limit / u64::try_from(owners.len()).unwrap_or(u64::MAX).max(1);
    let mut surplus = Surplus::default();
    while total > limit {
        let over = owners.values_mut().filter(|kept| kept.bytes > share && kept.jobs.len() > 1);
        let Some(kept) = over.min_by_key(|kept| kept.oldest()) else { break };
        let Some(job) = kept.jobs.pop() else { break };
        kept.bytes = kept.bytes.saturating_sub(job.bytes());
        total = total.saturating_sub(job.bytes());
        surplus.jobs.push(job);
    }
    let mut newest: Vec<Finished> =
        owners.into_values().filter(|kept| kept.bytes > share).filter_map(|mut kept| kept.jobs.pop()).collect();
    newest.sort_by_key(|job| job.ended);
    for job in newest.into_iter().filter(|job| job.outputs.is_some()) {
        if total <= limit {
            break;
        }
        total = total.saturating_sub(job.bytes());
        surplus.outputs.push(job);
    }
    surplus
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::wire::name::RequestId;

    const MIB: u64 = 1 << 20;

    /// Jobs by owner, id, second of their end, and MiB printed.
    fn jobs(list: &[(&str, &str, u64, u64)]) -> Vec<Finished> {
        let job = |(owner, id, second, mib): &(&str, &str, u64, u64)| Finished {
            key: Key { owner: DispatcherId::parse(owner).unwrap(), id: RequestId::parse(id).unwrap() },
            ended: UNIX_EPOCH + Duration::from_secs(*second),
            outputs: Some(mib * MIB),
            record: mib * MIB * 6,
        };
        list.iter().map(job).collect()
    }

    fn ids(jobs: &[Finished]) -> Vec<&str> {
        jobs.iter().map(|job| job.key.id.as_str()).collect()
    }

    #[test]
    fn within_the_limit_nothing_goes_whatever_the_records_take() {
        let found = surplus(jobs(&[("a", "1", 1, 4), ("b", "2", 2, 5)]), 10 * MIB);
        assert!(found.jobs.is_empty() && found.outputs.is_empty());
    }

    #[test]
    fn who_prints_much_loses_the_oldest_and_who_prints_little_loses_nothing() {
        let all = jobs(&[("b", "precious", 1, 0), ("a", "2", 3, 5), ("a", "1", 2, 5), ("a", "3", 4, 5)]);
        let found = surplus(all, 10 * MIB);
        assert_eq!((ids(&found.jobs), ids(&found.outputs)), (vec!["1", "2"], vec![]));
    }

    #[test]
    fn the_newest_of_each_keeps_its_record_and_loses_what_is_beside_it() {
        let all = jobs(&[("a", "1", 1, 20), ("b", "2", 2, 1), ("c", "3", 3, 20), ("c", "4", 4, 20)]);
        let found = surplus(all, 25 * MIB);
        assert_eq!((ids(&found.jobs), ids(&found.outputs)), (vec!["3"], vec!["1"]));
    }

    #[test]
    fn equal_parties_lose_in_the_order_of_their_ends() {
        let all = jobs(&[("a", "1", 1, 3), ("b", "2", 2, 3), ("a", "3", 3, 3), ("b", "4", 4, 3)]);
        assert_eq!(ids(&surplus(all.clone(), 10 * MIB).jobs), ["1"]);
        assert_eq!(ids(&surplus(all, 7 * MIB).jobs), ["1", "2"]);
    }

    #[test]
    fn jobs_that_print_nothing_are_not_for_nothing() {
        let mut all = jobs(&[("a", "1", 1, 0), ("a", "2", 2, 0), ("a", "3", 3, 0)]);
        assert_eq!(ids(&surplus(all.clone(), 2 * ENTRY).jobs), ["1"]);
        // One of the original's has its outputs in the record alone.
        for job in &mut all {
            (job.outputs, job.record) = (None, MIB);
        }
        assert_eq!(ids(&surplus(all, 2 * MIB + 2 * ENTRY).jobs), ["1"]);
    }
}
