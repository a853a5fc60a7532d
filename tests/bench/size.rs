//! What the program weighs, and what it keeps.

use crate::process::resident;
use crate::report::Report;
use crate::site::Site;
use crate::time::{float, median, timed};
use crate::{Bench, cold};

const ROUNDS: usize = 300;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let mut version = Vec::new();
    for _ in 0..ROUNDS {
        version.push(timed(|| cold::finish(site.command(&["--version"]))));
        cold::finish(site.command(&["run", "web", "true"]));
    }
    let (agent, executor) = site.pids();
    report.at_most("ctrl-exec --version, p50", median(&version), "ms", 5.0);
    report.at_most("agent, resident after 300 runs", float(resident(agent)), "KiB", 8192.0);
    report.at_most("executor, resident after 300 runs", float(resident(executor)), "KiB", 3072.0);
    let bytes = std::fs::metadata(&bench.binary).unwrap().len();
    report.at_most("binary", float(bytes / 1024), "KiB", 12_288.0);
}
