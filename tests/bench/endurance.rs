//! Whether agent and executor grow over many requests.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::Bench;
use crate::caller::Caller;
use crate::process;
use crate::report::Report;
use crate::site::Site;
use crate::time::{float, rate};

/// Callers at once, and which share of their calls are runs.
const CALLERS: u64 = 8;
const RUNS: u64 = 10;
/// How much more resident memory is no growth: what an allocator keeps for one more busy moment, KiB.
const NOISE: f64 = 1024.0;

/// What a process holds: resident KiB, descriptors, children.
struct Held(u64, u64, u64);

impl Held {
    fn of(pid: u32) -> Self {
        let children = process::children(pid).len();
        Self(process::resident(pid), process::descriptors(pid), u64::try_from(children).unwrap())
    }
}

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let (agent, executor) = site.pids();
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let caller = Caller::new(&site);
    let tenth = bench.size / 10 / CALLERS;
    runtime.block_on(caller.at_once(CALLERS, tenth, RUNS));
    settle(executor);
    let before = [agent, executor].map(Held::of);
    let elapsed = runtime.block_on(caller.at_once(CALLERS, 9 * tenth, RUNS));
    settle(executor);
    let after = [agent, executor].map(Held::of);
    report.fact("requests, every tenth a run, eight callers", float(10 * tenth * CALLERS), "");
    report.fact("requests in a second", rate(9 * tenth * CALLERS, elapsed), "/s");
    for ((who, before), after) in ["agent", "executor"].into_iter().zip(before).zip(after) {
        report.fact(&format!("{who}, resident at 10 %"), float(before.0), "KiB");
        let grown = float(after.0) - float(before.0);
        report.at_most(&format!("{who}, growth from 10 % to 100 %"), grown, "KiB", NOISE);
        report.at_most(&format!("{who}, descriptors at 100 %"), float(after.1), "", float(before.1));
        report.at_most(&format!("{who}, children at 100 %"), float(after.2), "", float(before.2));
    }
}

/// Waits until the last monitor is gone.
fn settle(executor: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !process::children(executor).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}
