//! What this process uses of the host: memory, descriptors, CPU time (`proc_pid_status(5)`, `getrusage(2)`).

use std::time::Duration;

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike as _;

/// What is used now. Nothing where the host does not say, as where `/proc` is hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open.
    pub most_descriptors: Option<u64>,
    /// CPU time of all threads so far, the kernel's work for them included.
    pub cpu: Option<Duration>,
}

impl Usage {
    /// Asks.
    #[must_use]
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // One of them is the directory's own.
        let open = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
        let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| usage.user_time() + usage.system_time());
        Self {
            resident: resident(&status),
            descriptors: open.and_then(|count| u64::try_from(count.saturating_sub(1)).ok()),
            most_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            cpu: cpu.and_then(|time| u64::try_from(time.num_microseconds()).ok()).map(Duration::from_micros),
        }
    }
}

/// `VmRSS`, which is in KiB whatever the unit's name says.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_uses() {
        let before = Usage::now();
        let file = std::fs::File::open("/dev/null").unwrap();
        let after = Usage::now();
        assert!(after.descriptors.unwrap() > 2 && after.most_descriptors.unwrap() >= after.descriptors.unwrap());
        assert!(after.resident.unwrap() > 1 << 20 && after.cpu.unwrap() >= before.cpu.unwrap());
        drop(file);
    }

    #[test]
    fn a_host_that_does_not_say_is_no_fault() {
        assert_eq!(resident("VmPeak:\t 10 kB\nVmRSS:\t    1024 kB\n"), Some(1 << 20));
        for text in ["", "VmRSS:", "VmRSS:\t x kB", "VmRSS:\t10 MB"] {
            assert_eq!(resident(text), None);
        }
    }
}
