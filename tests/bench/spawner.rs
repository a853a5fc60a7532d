//! The floor under a run: fork, exec and wait of the same program, from a small process.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::helper;
use crate::time::timed;

/// The small process.
pub(crate) struct Spawner {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Spawner {
    /// One that spawns `program`.
    pub(crate) fn start(program: &Path) -> Self {
        let mut child = helper::start("spawner", &[program.to_str().unwrap()]);
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers).lines() }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Spawns the program so often, from so many threads at once: the whole time, and each one's.
    pub(crate) fn spawn(&mut self, count: usize, threads: usize) -> (Duration, Vec<Duration>) {
        writeln!(self.orders, "{count} {threads}").unwrap();
        let line = self.answers.next().unwrap().unwrap();
        let mut times = line.split(' ').map(|nanos| Duration::from_nanos(nanos.parse().unwrap()));
        (times.next().unwrap(), times.collect())
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The helper's side: an order a line.
pub(crate) fn help(words: &[&str]) {
    let program = words.first().unwrap();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (count, threads) = line.split_once(' ').unwrap();
        let (count, threads): (usize, usize) = (count.parse().unwrap(), threads.parse().unwrap());
        let started = Instant::now();
        let spawn = || (0..count / threads).map(|_| timed(|| one(program))).collect::<Vec<_>>();
        let times: Vec<Duration> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(spawn)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        let all = std::iter::once(started.elapsed()).chain(times);
        let texts: Vec<String> = all.map(|time| time.as_nanos().to_string()).collect();
        println!("{}", texts.join(" "));
    }
}

fn one(program: &str) {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
}
