//! Whole processes of the command line, each with a new connection.
//!
//! The floor of a `run` is what nothing that does its work goes without: one bare spawn of the script's program, and one full
//! mutual handshake of the same TLS library with the same certificates, both ends in this process. The `run` is more: a
//! process of its own, from its start until it has been waited for, which connects, is asked who it is, has the agent's
//! executor start the script under its profile, prints what came of it and writes its record.
//!
//! Bare spawns and calls are started by the same small process and take turns one by one: what a fork costs depends on who
//! forks, and a machine that slows down or speeds up meanwhile does so for all of them. Of each kind half the times are
//! below the figure.

use std::process::{Command, Stdio};

use crate::Bench;
use crate::floor::Handshake;
use crate::report::Report;
use crate::site::Site;
use crate::spawner::Spawner;
use crate::time::{median, timed};

/// Turns: in each, one operation of each kind.
const TURNS: usize = 600;
/// The option that does without the TLS session of an earlier process.
const NO_RESUME: &str = "--no-resume";

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let knows = knows_no_resume(&site);
    let full: &[&str] = if knows { &["run", NO_RESUME, "web", "true"] } else { &["run", "web", "true"] };
    let call = |words: &[&str]| {
        let own = ["--root", site.root().to_str().unwrap()];
        [&[bench.binary.to_str().unwrap()], own.as_slice(), words].concat().into_iter().map(str::to_owned).collect()
    };
    let commands = [vec!["/bin/true".to_owned()], call(&["ping", "web"]), call(full), call(&["run", "web", "true"])];
    let (floor, mut spawner) = (Handshake::prepare(&site), Spawner::of(&commands));
    let (mut spawns, mut handshakes, mut pings, mut fulls, mut resumed) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..TURNS {
        spawns.push(spawner.once(0));
        handshakes.push(timed(|| floor.once()));
        pings.push(spawner.once(1));
        fulls.push(spawner.once(2));
        resumed.push(spawner.once(3));
    }
    let [spawn, ping, full, resumed] = [spawns, pings, fulls, resumed].map(|times| median(&times));
    let floor = spawn + median(&handshakes);
    report.fact("bare spawn, exec and wait of /bin/true, p50", spawn, "ms");
    report.fact("full mutual TLS 1.3 P-256 handshake, loopback, p50", median(&handshakes), "ms");
    report.fact("ping, whole process, p50", ping, "ms");
    report.fact("run of /bin/true, whole process, full handshake, p50", full, "ms");
    report.at_most("that run / (spawn + handshake)", full / floor, "x", 2.0);
    if knows {
        report.at_most("run of /bin/true, whole process, resumed session, p50", resumed, "ms", full);
    } else {
        report.skipped("run of /bin/true, whole process, resumed session", "no --no-resume");
    }
}

fn knows_no_resume(site: &Site) -> bool {
    let help = site.command(&["run", "--help"]).output().unwrap();
    String::from_utf8_lossy(&help.stdout).contains(NO_RESUME)
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn finish(mut command: Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
