//! Script output: how fast, and what it costs each process on its way.

use std::process::Stdio;
use std::time::Instant;

use crate::process::{self, Watch, own_processor, peak};
use crate::report::Report;
use crate::site::Site;
use crate::time::float;
use crate::{Bench, tls_pipe};

/// The most that any process may take, KiB.
const LARGEST: f64 = 24_576.0;
const MEGA: f64 = 1_000_000.0;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let bytes = bench.size.to_string();
    let (floor, least) = tls_pipe::copy(site.root(), &bytes);
    let floor = float(bench.size) / MEGA / floor.as_secs_f64();
    let (agent, executor) = site.pids();
    let before = own_processor(agent);
    let started = Instant::now();
    let mut command = site.command(&["run", "--stream", "web", "head", "--", "-c", &bytes, "/dev/zero"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let dispatcher = child.id();
    let watch = Watch::start(move || {
        let monitors = process::children(executor).into_iter().map(|pid| ("monitor", peak(pid)));
        let known = [("agent", agent), ("executor", executor), ("dispatcher", dispatcher)];
        known.into_iter().map(|(what, pid)| (what, peak(pid))).chain(monitors).collect()
    });
    let working = Watch::start(move || vec![("dispatcher", own_processor(dispatcher))]);
    assert!(child.wait().unwrap().success());
    let elapsed = started.elapsed();
    let served = own_processor(agent) - before;
    let largest = watch.end();
    let speed = float(bench.size) / MEGA / elapsed.as_secs_f64();
    report.fact("output of a script", float(bench.size) / MEGA, "MB");
    report.fact("cat through TLS of the same library", floor, "MB/s");
    report.fact("run --stream", speed, "MB/s");
    report.at_least("run --stream / cat through TLS", speed / floor, "x", 0.5);
    // Unlike the speeds, these are the same on a busy machine.
    let giga = float(bench.size) / MEGA / 1000.0;
    report.fact("processor time of a GB, cat through TLS", float(least) / giga, "ms");
    let work = working.end().values().sum::<u64>() + served;
    report.fact("processor time of a GB, agent and dispatcher", float(work) / giga, "ms");
    for (what, peak) in largest {
        report.at_most(&format!("{what}, largest"), float(peak), "KiB", LARGEST);
    }
}
