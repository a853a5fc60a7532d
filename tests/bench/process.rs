//! What `/proc` says about a process (proc(5)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// `USER_HZ` is 100 wherever this runs.
const MILLIS_A_TICK: u64 = 10;

/// Resident memory now, KiB; 0 for a process that has ended.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Largest resident memory so far, KiB; 0 for a process that has ended.
pub(crate) fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Open descriptors; 0 for a process that has ended.
pub(crate) fn descriptors(pid: u32) -> u64 {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| u64::try_from(entries.count()).unwrap())
}

/// Open sockets; 0 for a process that has ended.
pub(crate) fn sockets(pid: u32) -> u64 {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    u64::try_from(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()).unwrap()
}

/// Processor time of a process and of the children that it has waited for, milliseconds.
pub(crate) fn processor(pid: u32) -> u64 {
    ticks(pid, 4) * MILLIS_A_TICK
}

/// Processor time of a process alone, milliseconds.
pub(crate) fn own_processor(pid: u32) -> u64 {
    ticks(pid, 2) * MILLIS_A_TICK
}

/// The first of user and system time, and user and system time of children.
fn ticks(pid: u32, fields: usize) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Behind the name in parentheses come the third field and the rest; the times are fields 14 to 17.
    let values = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(fields);
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

/// Its children, whichever of its threads started them.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

fn status(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(key)).and_then(|line| line.split_whitespace().next());
    value.map_or(0, |value| value.parse().unwrap())
}

/// The largest figures of some processes while something goes on, looked up a thousand times a second.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<&'static str, u64>>,
}

impl Watch {
    /// `look` tells the figures of this moment.
    pub(crate) fn start(look: impl Fn() -> Vec<(&'static str, u64)> + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut largest = BTreeMap::new();
            while !until.load(Ordering::Relaxed) {
                for (what, figure) in look() {
                    let known = largest.entry(what).or_insert(0);
                    *known = figure.max(*known);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            largest
        });
        Self { over, thread }
    }

    /// The largest of each.
    pub(crate) fn end(self) -> BTreeMap<&'static str, u64> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}
