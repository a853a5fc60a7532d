//! Runs through the library, on connections that stay open.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::Bench;
use crate::caller::Caller;
use crate::process;
use crate::report::Report;
use crate::site::Site;
use crate::spawner::Spawner;
use crate::time::{float, median, rate};

/// Turns, and operations of each kind in a turn. They take turns, so that a slow moment of the machine hits both.
const TURNS: u64 = 20;
const EACH: u64 = 100;
/// How many at once.
const CALLERS: u64 = 8;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let mut spawner = Spawner::start(Path::new("/bin/true"));
    one(&site, &mut spawner, report);
    several(&site, &mut spawner, report);
}

fn one(site: &Site, spawner: &mut Spawner, report: &mut Report) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let caller = Caller::new(site);
    runtime.block_on(caller.at_once(1, 50, 1));
    let (mut spawns, mut runs, mut pings): (Vec<Duration>, Vec<Duration>, Vec<Duration>) = (vec![], vec![], vec![]);
    for _ in 0..TURNS {
        spawns.extend(spawner.spawn(usize::try_from(EACH).unwrap(), 1).1);
        runtime.block_on(async {
            for _ in 0..EACH {
                runs.push(caller.run().await);
                pings.push(caller.ping().await);
            }
        });
    }
    let (spawn, run) = (median(&spawns), median(&runs));
    report.fact("bare spawn, exec and wait of /bin/true, p50", spawn, "ms");
    report.fact("ping, p50", median(&pings), "ms");
    report.fact("run of /bin/true, p50", run, "ms");
    report.at_most("run / bare spawn", run / spawn, "x", 1.6);
}

fn several(site: &Site, spawner: &mut Spawner, report: &mut Report) {
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let caller = Caller::new(site);
    runtime.block_on(caller.at_once(CALLERS, 20, 1));
    let (agent, executor) = site.pids();
    // Unlike the times on the wall clock, these are the same on a busy machine.
    let used = |spawner: &Spawner| {
        let server = process::processor(agent) + process::processor(executor);
        [process::processor(spawner.pid()), server, process::processor(std::process::id())]
    };
    let before = used(spawner);
    let (mut spawning, mut running) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..TURNS {
        let threads = usize::try_from(CALLERS).unwrap();
        spawning += spawner.spawn(usize::try_from(EACH * CALLERS).unwrap(), threads).0;
        running += runtime.block_on(caller.at_once(CALLERS, EACH, 1));
    }
    let after = used(spawner);
    let count = TURNS * EACH * CALLERS;
    let (spawns, runs) = (rate(count, spawning), rate(count, running));
    report.fact("bare spawns, eight at once", spawns, "/s");
    report.fact("runs of /bin/true, eight callers at once", runs, "/s");
    report.at_least("runs / bare spawns, eight at once", runs / spawns, "x", 0.6);
    let parts = ["bare spawn", "run, from the agent to the script", "run, dispatcher"];
    for ((what, before), after) in parts.into_iter().zip(before).zip(after) {
        report.fact(&format!("processor time of a {what}"), float(after - before) / float(count), "ms");
    }
}
