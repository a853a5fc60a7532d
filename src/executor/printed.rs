//! How much a detached job has printed, and what becomes of one that prints too much.
//!
//! Its output goes straight into files, past every process of ours, and the kernel has no limit for two files of somebody
//! who may write others. So the monitor looks: the less room is left, the sooner again. A job that passes the limit is
//! asked to end, as at a time limit, and is killed if it goes on printing ([`FAREWELL`]). When it is gone, its files are cut
//! to the limit, and its outcome says so.
//!
//! What it can write between two looks is the slack of the limit while it runs: of what a disk takes, a few hundredths of
//! a second.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use super::watch::Excess;
use crate::sys::file;
use crate::wire::outcome::Outcome;

/// Bytes that a job may print beyond its limit while it ends in order.
const FAREWELL: u64 = 1 << 20;
/// Bytes that nobody prints faster in a second: the copying of memory.
const FASTEST: u64 = 2 << 30;
/// Shortest and longest time between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What a job prints into.
#[derive(Debug)]
pub(super) struct Printed {
    files: [File; 2],
    most: u64,
    next: Instant,
    /// There was no room for more when somebody looked.
    short: bool,
}

impl Printed {
    /// Of a job with this standard input, output and error, which may print `most` bytes.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn new([_, output, error]: &[OwnedFd; 3], most: u64, now: Instant) -> io::Result<Self> {
        Ok(Self { files: [output.try_clone()?.into(), error.try_clone()?.into()], most, next: now, short: false })
    }

    /// When to look next.
    pub(super) const fn wakes(&self) -> Instant {
        self.next
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self, now: Instant) -> Option<Excess> {
        if now < self.next {
            return None;
        }
        self.short |= self.files.iter().any(file::ends_with_its_disk);
        let printed = self.files.iter().map(weight).fold(0, u64::saturating_add);
        self.next = now.checked_add(pause(self.most.saturating_sub(printed)))?;
        let over = printed.checked_sub(self.most).filter(|over| *over > 0)?;
        Some(Excess { limit: self.most, far: over > FAREWELL })
    }

    /// A job is gone, with this outcome. Whether there was a moment in which the disk had no room for what it was printing.
    pub(super) fn settle(&self, outcome: &Outcome) -> bool {
        let short = self.short || self.files.iter().any(file::ends_with_its_disk);
        if matches!(outcome, Outcome::OutputLimit { .. }) {
            // What cannot be cut is removed with the job's other files, as ever.
            drop(self.cut());
        }
        short
    }

    /// Cuts the files of a job that is gone.
    ///
    /// # Errors
    /// The disk's.
    fn cut(&self) -> io::Result<()> {
        let sizes = self.files.each_ref().map(size);
        for (file, most) in self.files.iter().zip(kept(sizes, self.most)) {
            if holds(file).is_some() {
                // Also where that is its length: what was reserved behind it is given back.
                file.set_len(most)?;
            }
        }
        Ok(())
    }
}

/// A pipe or device holds nothing on a disk.
fn holds(file: &File) -> Option<Metadata> {
    file.metadata().ok().filter(Metadata::is_file)
}

fn size(file: &File) -> u64 {
    holds(file).map_or(0, |found| found.len())
}

/// What counts of a file: its length, or what it takes of the disk if that is more. A job can have room reserved behind
/// the end of its output (fallocate(2)); file systems do so too, but hardly more than as much again.
fn weight(file: &File) -> u64 {
    /// Bytes of a block, as `stat` counts them (stat(3type)).
    const BLOCK: u64 = 512;
    holds(file).map_or(0, |found| {
        let taken = found.blocks().saturating_mul(BLOCK);
        found.len().max((taken / 2).saturating_sub(FAREWELL))
    })
}

/// The time in which the fastest could use up the room that is left.
fn pause(room: u64) -> Duration {
    let nanos = u128::from(room).saturating_mul(1_000_000_000) / u128::from(FASTEST);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).clamp(PAUSES.0, PAUSES.1)
}

/// How much of each file stays: what one of them does not need of its half is the other's.
fn kept([output, error]: [u64; 2], most: u64) -> [u64; 2] {
    let half = most / 2;
    let error = error.min(half.max(most.saturating_sub(output)));
    [output.min(most.saturating_sub(error)), error]
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;

    #[test]
    fn the_two_outputs_share_the_limit() {
        for (sizes, most, wanted) in [
            ([10, 10], 100, [10, 10]),
            ([1000, 0], 100, [100, 0]),
            ([0, 1000], 100, [0, 100]),
            ([1000, 10], 100, [90, 10]),
            ([10, 1000], 100, [10, 90]),
            ([1000, 1000], 100, [50, 50]),
            ([u64::MAX, u64::MAX], 101, [51, 50]),
        ] {
            assert_eq!(kept(sizes, most), wanted, "{sizes:?}");
        }
    }

    #[test]
    fn the_less_room_is_left_the_sooner_comes_the_next_look() {
        assert_eq!(pause(0), PAUSES.0);
        assert_eq!(pause(1 << 30), Duration::from_millis(500));
        assert_eq!(pause(u64::MAX), PAUSES.1);
    }

    #[test]
    fn room_that_a_job_reserves_behind_its_output_counts_and_is_given_back() {
        let files: [File; 3] = std::array::from_fn(|_| tempfile::tempfile().unwrap());
        let output = files[1].try_clone().unwrap();
        let now = Instant::now();
        let mut printed = Printed::new(&files.map(OwnedFd::from), 1 << 20, now).unwrap();
        let reserve = |bytes| fallocate(&output, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes).unwrap();
        reserve(1 << 20);
        assert_eq!(printed.look(now), None);
        reserve(16 << 20);
        assert_eq!(printed.look(now + PAUSES.1), Some(Excess { limit: 1 << 20, far: true }));
        printed.cut().unwrap();
        assert_eq!((output.metadata().unwrap().len(), weight(&output)), (0, 0));
    }

    #[test]
    fn a_job_is_looked_at_in_time_and_cut_at_its_end() {
        let files: [File; 3] = std::array::from_fn(|_| tempfile::tempfile().unwrap());
        let [_, mut output, error] = files.each_ref().map(|file| file.try_clone().unwrap());
        let now = Instant::now();
        let mut printed = Printed::new(&files.map(OwnedFd::from), 1000, now).unwrap();
        assert_eq!(printed.look(now), None);
        assert_eq!(printed.wakes(), now + PAUSES.0);
        output.write_all(&[0; 1001]).unwrap();
        assert_eq!(printed.look(now), None, "too early");
        assert_eq!(printed.look(now + PAUSES.0), Some(Excess { limit: 1000, far: false }));
        error.set_len(FAREWELL).unwrap();
        assert_eq!(printed.look(now + PAUSES.0 * 2), Some(Excess { limit: 1000, far: true }));
        printed.cut().unwrap();
        assert_eq!([output, error].map(|file| size(&file)), [500, 500]);
    }
}
