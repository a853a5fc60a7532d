//! One target for so many seconds of CPU time.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use super::figures::Figures;
use super::{kept, sources};
use crate::Outcome;
use crate::run::Run;

/// How often the time is looked at.
const TICK: Duration = Duration::from_millis(500);
/// Clock ticks a second in `/proc` on every Linux that this runs on (`USER_HZ`, time(7)).
const TICKS: u64 = 100;

/// What a session takes.
pub(super) struct Session {
    /// The target.
    pub(super) name: &'static str,
    /// Longest input, in bytes.
    pub(super) longest: u32,
    /// Its program.
    pub(super) program: PathBuf,
}

impl Session {
    /// Runs until the time is used up or something is found.
    pub(super) fn run(&self, seconds: u64) -> Outcome<Figures> {
        let (corpus, findings) = (kept().join("corpus").join(self.name), kept().join("findings").join(self.name));
        let log = kept().join("log").join(self.name);
        for folder in [Some(corpus.as_path()), Some(&findings), log.parent()].into_iter().flatten() {
            fs::create_dir_all(folder).map_err(|why| format!("cannot make {}: {why}", folder.display()))?;
        }
        let output = File::create(&log).map_err(|why| format!("cannot write {}: {why}", log.display()))?;
        let both = output.try_clone().map_err(|why| format!("cannot write {}: {why}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.args([&corpus, &sources().join("seeds").join(self.name)]);
        command.args(self.options(&findings)).stdout(both).stderr(output);
        let mut child = command.spawn().map_err(|why| format!("cannot start {}: {why}", self.program.display()))?;
        let (used, ended_by_itself) = watched(&mut child, seconds)?;
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        let figures = Figures::read(self.name, &text, used);
        if ended_by_itself && figures.finding().is_none() {
            return Err(format!("{} ended by itself: {} says why", self.program.display(), log.display()));
        }
        Ok(figures)
    }

    fn options(&self, findings: &Path) -> [String; 6] {
        [
            format!("-artifact_prefix={}/", findings.display()),
            format!("-dict={}", sources().join("dictionaries").join(self.name).display()),
            format!("-max_len={}", self.longest),
            "-print_final_stats=1".to_owned(),
            "-rss_limit_mb=2048".to_owned(),
            "-timeout=10".to_owned(),
        ]
    }
}

/// Waits until the child has used its time, or has ended by itself. Returns the CPU-seconds that it used.
fn watched(child: &mut Child, seconds: u64) -> Outcome<(f64, bool)> {
    let mut used = 0;
    loop {
        used = cpu_time(child.id()).unwrap_or(used).max(used);
        if let Some(_status) = child.try_wait().map_err(|why| why.to_string())? {
            return Ok((as_seconds(used), true));
        }
        if used >= seconds * TICKS {
            // libFuzzer's way to be told that it is enough.
            Run::new("kill").args(["-USR1", &child.id().to_string()]).go()?;
            child.wait().map_err(|why| why.to_string())?;
            return Ok((as_seconds(used), false));
        }
        sleep(TICK);
    }
}

#[expect(clippy::cast_precision_loss, reason = "hundredths of a second, for people")]
fn as_seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS as f64
}

/// User and system time of a process, in ticks (`proc_pid_stat(5)`).
fn cpu_time(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_has_used_time_and_a_dead_one_none() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu_time(std::process::id()).unwrap() < before + 2 {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0);
        assert_eq!(cpu_time(u32::MAX), None);
    }

    #[test]
    fn a_process_that_ends_by_itself_is_noticed() {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(watched(&mut child, 1000).unwrap().1);
    }
}
