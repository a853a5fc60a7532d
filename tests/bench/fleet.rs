//! Many agents, and many connections at once, from one process of the command line.

use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{self, Watch};
use crate::report::Report;
use crate::site::Site;
use crate::time::{float, median, timed};
use crate::{Bench, cold};

/// Agents that are processes of their own.
const AGENTS: u8 = 64;
/// Connections at once, to so many of them.
const CONNECTIONS: usize = 1000;
const SHARED: usize = 8;
/// How often all agents are called.
const ROUNDS: usize = 20;

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let mut site = Site::control(&bench.binary, &format!("max_parallel = {CONNECTIONS}\n"));
    let names: Vec<String> = (1..=AGENTS).map(|number| format!("agent{number}")).collect();
    for (name, number) in names.iter().zip(1..) {
        site.add(name, Ipv4Addr::new(127, 0, 7, number).into());
    }
    let words = all("run", &names, &["true"]);
    cold::finish(site.command(&words));
    let times: Vec<Duration> = (0..ROUNDS).map(|_| timed(|| cold::finish(site.command(&words)))).collect();
    report.at_most("run of /bin/true on 64 agents, whole process, p50", median(&times), "ms", 500.0);
    at_once(&site, report);
}

/// Scripts that wait keep their connections open until all of them are.
fn at_once(site: &Site, report: &mut Report) {
    let names: Vec<String> = (0..CONNECTIONS).map(|number| format!("name{number}")).collect();
    for (number, name) in names.iter().enumerate() {
        site.register(name, number % SHARED);
    }
    let pinged = watched(site.command(&all("ping", &names, &[])));
    report.fact("ping of 1000 agents, whole process", pinged.millis, "ms");
    report.at_most("dispatcher, largest, ping of 1000", float(pinged.peak), "KiB", 61_440.0);
    let waited = watched(site.command(&all("run", &names, &["sleep", "--", "5"])));
    report.fact("sockets of a run on 1000 agents at once", float(waited.sockets), "");
    report.at_most("dispatcher, largest, run on 1000 at once", float(waited.peak), "KiB", 61_440.0);
}

fn all<'a>(verb: &'a str, names: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    [verb].into_iter().chain(names.iter().map(String::as_str)).chain(rest.iter().copied()).collect()
}

/// What a process came to.
struct Watched {
    millis: f64,
    peak: u64,
    sockets: u64,
}

fn watched(mut command: Command) -> Watched {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let watch = Watch::start(move || vec![("peak", process::peak(pid)), ("sockets", process::sockets(pid))]);
    let status = child.wait().unwrap();
    let millis = crate::time::millis(started.elapsed());
    let largest = watch.end();
    assert!(status.success(), "{command:?}: {status}");
    Watched { millis, peak: *largest.get("peak").unwrap(), sockets: *largest.get("sockets").unwrap() }
}
