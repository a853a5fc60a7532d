//! Figures of the main job, taken in one run and reported as ratios to floors measured in the same run.
//!
//! `cargo xtask bench` runs it against the static binary. Times are medians of whole operations on the wall clock;
//! nothing here fails for being slow, so that a loaded machine breaks no build. Ratios are what to compare.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench prints, starts programs, and has nobody to report errors to"
)]

mod floor;
mod site;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use site::Site;

/// Operations of each kind. The kinds take turns, so that a slow moment of the machine hits all of them.
const ROUNDS: usize = 300;

fn main() {
    let binary =
        PathBuf::from(std::env::var_os("CTRL_EXEC_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_ctrl-exec").into()));
    let site = Site::start(&binary);
    let floor = floor::Handshake::prepare(&site);
    let (mut spawn, mut handshake, mut version, mut ping, mut run) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        spawn.push(timed(|| finish(Command::new("/bin/true"))));
        handshake.push(timed(|| floor.once()));
        version.push(timed(|| finish(site.command(&["--version"]))));
        ping.push(timed(|| finish(site.command(&["ping", "web"]))));
        run.push(timed(|| finish(site.command(&["run", "web", "true"]))));
    }
    let [spawn, handshake, version, ping, run] = [spawn, handshake, version, ping, run].map(median);
    println!("binary {}, {ROUNDS} rounds, medians", binary.display());
    println!("{:<44} {:>8} ms", "bare spawn, exec and wait of /bin/true", ms(spawn));
    println!("{:<44} {:>8} ms", "full mutual TLS 1.3 P-256 handshake, loopback", ms(handshake));
    println!("{:<44} {:>8} ms  (limit 5)", "ctrl-exec --version", ms(version));
    println!("{:<44} {:>8} ms", "cold ping, whole process", ms(ping));
    println!("{:<44} {:>8} ms", "cold run of /bin/true, whole process", ms(run));
    let ratio = run.as_secs_f64() / (spawn + handshake).as_secs_f64();
    println!("{:<44} {ratio:>8.2}     (limit 3)", "cold run / (spawn + handshake)");
    for (who, kib, limit) in site.resident() {
        println!("{:<44} {kib:>8} KiB (limit {limit})", format!("{who}, resident after {ROUNDS} runs"));
    }
    let bytes = std::fs::metadata(&binary).unwrap().len();
    println!("{:<44} {:>8} KiB (limit 12288)", "binary", bytes / 1024);
}

fn finish(mut command: Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap()
}

fn ms(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}
