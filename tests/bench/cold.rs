//! Whole processes of the command line, each with a new connection.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Bench;
use crate::floor::Handshake;
use crate::report::Report;
use crate::site::Site;
use crate::spawner::Spawner;
use crate::time::{median, timed};

/// Operations of each kind. They take turns, so that a slow moment of the machine hits all of them.
const ROUNDS: usize = 300;
/// The option that does without the TLS session of an earlier process.
const NO_RESUME: &str = "--no-resume";

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let (floor, mut spawner) = (Handshake::prepare(&site), Spawner::start(Path::new("/bin/true")));
    let knows = knows_no_resume(&site);
    let full: &[&str] = if knows { &["run", NO_RESUME, "web", "true"] } else { &["run", "web", "true"] };
    let (mut spawns, mut handshakes, mut pings, mut fulls, mut resumed) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        spawns.extend(spawner.spawn(1, 1).1);
        handshakes.push(timed(|| floor.once()));
        pings.push(call(&site, &["ping", "web"]));
        fulls.push(call(&site, full));
        if knows {
            resumed.push(call(&site, &["run", "web", "true"]));
        }
    }
    let (floor, full) = (median(&spawns) + median(&handshakes), median(&fulls));
    report.fact("bare spawn, exec and wait of /bin/true, p50", median(&spawns), "ms");
    report.fact("full mutual TLS 1.3 P-256 handshake, loopback, p50", median(&handshakes), "ms");
    report.fact("ping, whole process, p50", median(&pings), "ms");
    report.fact("run of /bin/true, whole process, full handshake, p50", full, "ms");
    report.at_most("that run / (spawn + handshake)", full / floor, "x", 2.0);
    if knows {
        report.at_most("run of /bin/true, whole process, resumed session, p50", median(&resumed), "ms", full);
    } else {
        report.skipped("run of /bin/true, whole process, resumed session", "no --no-resume");
    }
}

fn knows_no_resume(site: &Site) -> bool {
    let help = site.command(&["run", "--help"]).output().unwrap();
    String::from_utf8_lossy(&help.stdout).contains(NO_RESUME)
}

fn call(site: &Site, words: &[&str]) -> Duration {
    timed(|| finish(site.command(words)))
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn finish(mut command: Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
