//! Whole processes, started and waited for by a small process: what a fork costs depends on the size of who forks.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::helper;
use crate::time::timed;

/// Between the words of a command, and between commands: neither is in any of them.
const WORD: char = '\u{1f}';
const COMMAND: &str = "\u{1e}";

/// The small process.
pub(crate) struct Spawner {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Spawner {
    /// One that spawns `program`.
    pub(crate) fn start(program: &Path) -> Self {
        Self::of(&[vec![program.to_str().unwrap().to_owned()]])
    }

    /// One that spawns these commands, of which each is a program and its words.
    pub(crate) fn of(commands: &[Vec<String>]) -> Self {
        let commands: Vec<String> = commands.iter().map(|words| words.join(&WORD.to_string())).collect();
        let mut child = helper::start("spawner", &[&commands.join(COMMAND)]);
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers).lines() }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Spawns the first command so often, from so many threads at once: the whole time, and each one's.
    pub(crate) fn spawn(&mut self, count: usize, threads: usize) -> (Duration, Vec<Duration>) {
        let mut times = self.order(0, count, threads).into_iter();
        (times.next().unwrap(), times.collect())
    }

    /// Spawns one of the commands once.
    pub(crate) fn once(&mut self, command: usize) -> Duration {
        self.order(command, 1, 1).pop().unwrap()
    }

    /// The whole time, then each one's.
    fn order(&mut self, command: usize, count: usize, threads: usize) -> Vec<Duration> {
        writeln!(self.orders, "{command} {count} {threads}").unwrap();
        let line = self.answers.next().unwrap().unwrap();
        line.split(' ').map(|nanos| Duration::from_nanos(nanos.parse().unwrap())).collect()
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
    let commands: Vec<Vec<&str>> =
        words.first().unwrap().split(COMMAND).map(|command| command.split(WORD).collect()).collect();
    for line in std::io::stdin().lines() {
        let order: Vec<usize> = line.unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
        let [command, count, threads] = order.as_slice() else { unreachable!("three numbers") };
        let command = commands.get(*command).unwrap();
        let started = Instant::now();
        let times = spawn(command, count / threads, *threads);
        let all = std::iter::once(started.elapsed()).chain(times);
        let texts: Vec<String> = all.map(|time| time.as_nanos().to_string()).collect();
        println!("{}", texts.join(" "));
    }
}

fn spawn(command: &[&str], each: usize, threads: usize) -> Vec<Duration> {
    let several = || (0..each).map(|_| timed(|| one(command))).collect::<Vec<_>>();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(several)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

fn one(words: &[&str]) {
    let (program, words) = words.split_first().unwrap();
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
