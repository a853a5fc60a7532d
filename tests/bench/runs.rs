//! What it costs to run something through an executor, against a bare spawn of the same static program.

use std::time::{Duration, Instant};

use crate::Bench;
use crate::executor::{Executor, Host};
use crate::process;
use crate::report::Report;
use crate::spawner::Spawner;
use crate::time::{float, median, rate, timed};

/// Turns, and runs of each kind in a turn. They take turns, so that a slow moment of the machine hits all.
const TURNS: u64 = 40;
const EACH: u64 = 25;
/// Runs in a second that a root executor has to stand, and how many callers share them.
const PACE: u64 = 200;
const CALLERS: u64 = 4;
/// How much more resident memory is no growth, KiB.
const NOISE: f64 = 256.0;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let host = Host::new();
    cost(bench, &host, report);
    endurance(bench, &host, report);
    let own = Executor::own(&bench.binary, &host);
    own.order();
    let service = *process::children(own.pid()).first().unwrap();
    for when in ["", " after a reload"] {
        for (part, pid) in [("keeper", own.pid()), ("service", service)] {
            let resident = float(process::resident(pid));
            report.at_most(&format!("own executor, {part}, resident{when}"), resident, "KiB", 3072.0);
        }
        own.reload();
        (0..EACH).for_each(|_| own.order());
    }
}

fn cost(bench: &Bench, host: &Host, report: &mut Report) {
    let mut spawner = Spawner::start(&host.program());
    let executors = [Executor::private(&bench.binary, host), Executor::system(&bench.binary, host)];
    let used = |spawner: &Spawner| {
        let [private, system] = executors.each_ref().map(|executor| process::processor(executor.pid()));
        [process::processor(spawner.pid()), private, system]
    };
    spawner.spawn(10, 1);
    for executor in &executors {
        (0..10).for_each(|_| executor.order());
    }
    let (before, mut times): (_, [Vec<Duration>; 3]) = (used(&spawner), Default::default());
    for _ in 0..TURNS {
        let [bare, private, system] = &mut times;
        bare.extend(spawner.spawn(usize::try_from(EACH).unwrap(), 1).1);
        for (executor, times) in executors.iter().zip([private, system]) {
            times.extend((0..EACH).map(|_| timed(|| executor.order())));
        }
    }
    executors.iter().for_each(Executor::settle);
    let after = used(&spawner);
    let [bare, private, system] = times.map(|times| median(&times));
    report.fact("bare posix_spawn of a static program, p50", bare, "ms");
    report.fact("unconfined order, p50", private, "ms");
    report.fact("confined order, p50", system, "ms");
    report.at_most("unconfined order / posix_spawn", private / bare, "x", 1.7);
    report.at_most("confined order / posix_spawn", system / bare, "x", 3.0);
    let each = |place: usize| {
        let used = after.get(place).unwrap() - before.get(place).unwrap();
        float(used) / float(TURNS * EACH)
    };
    let [bare, private, system] = [each(0), each(1), each(2)];
    report.fact("processor time of a bare posix_spawn", bare, "ms");
    report.fact("processor time of an unconfined order", private, "ms");
    report.fact("processor time of a confined order", system, "ms");
    report.fact("unconfined order / posix_spawn, processor time", private / bare, "x");
    report.fact("confined order / posix_spawn, processor time", system / bare, "x");
    for (executor, what) in executors.iter().zip(["private", "system"]) {
        let resident = float(process::resident(executor.pid()));
        report.at_most(&format!("{what} executor, resident after {} runs", TURNS * EACH), resident, "KiB", 3072.0);
        executor.reload();
        // Reading anew gives pages back, and the next orders bring in what they need.
        (0..EACH).for_each(|_| executor.order());
        let resident = float(process::resident(executor.pid()));
        report.at_most(&format!("{what} executor, resident after a reload"), resident, "KiB", 3072.0);
    }
}

/// What must not grow: resident KiB, descriptors, mounts, control groups, children.
fn held(executor: &Executor) -> [(&'static str, u64, f64); 5] {
    let pid = executor.pid();
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap().lines().count();
    [
        ("resident, KiB", process::resident(pid), NOISE),
        ("descriptors", process::descriptors(pid), 0.0),
        ("mounts", u64::try_from(mounts).unwrap(), 0.0),
        ("control groups of the host", groups(std::path::Path::new("/sys/fs/cgroup")), 0.0),
        ("children", u64::try_from(process::children(pid).len()).unwrap(), 0.0),
    ]
}

/// Directories below this one.
fn groups(above: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(above).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|folder| 1 + groups(&folder.path())).sum()
}

fn endurance(bench: &Bench, host: &Host, report: &mut Report) {
    let executor = Executor::system(&bench.binary, host);
    (0..PACE).for_each(|_| executor.order());
    executor.settle();
    let before = held(&executor);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| paced(&executor, bench.size));
        }
    });
    let elapsed = started.elapsed();
    executor.settle();
    report.at_least("confined runs in a second, paced", rate(PACE * bench.size, elapsed), "/s", 0.98 * float(PACE));
    for ((what, before, noise), (_, after, _)) in before.into_iter().zip(held(&executor)) {
        let grown = float(after) - float(before);
        report.at_most(&format!("growth over {} confined runs: {what}", PACE * bench.size), grown, "", noise);
    }
}

/// One caller's share of the runs, each at its time.
fn paced(executor: &Executor, seconds: u64) {
    let (started, pace) = (Instant::now(), PACE / CALLERS);
    for number in 0..pace * seconds {
        let due = started + Duration::from_secs_f64(float(number) / float(pace));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        executor.order();
    }
}
