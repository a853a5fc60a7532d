//! What a run could leave behind: processes, mounts, control groups, files of its job.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::who;
use crate::harness::groups::Slice;
use crate::harness::{DEADLINE, Site, host};
use crate::jobs;

/// What the host has of its own.
pub(super) struct Before {
    belongings: BTreeSet<String>,
    /// What is on the command line of a process that a script has started, and on no other's.
    mark: String,
}

impl Before {
    pub(super) fn now(mark: &str) -> Self {
        Self { belongings: belongings(), mark: mark.to_owned() }
    }

    /// Waits until nothing of any run is there any more. An executor may stay, its keeper, and what they have.
    #[track_caller]
    pub(super) fn nothing_is_left_of_runs(&self, site: &Site, slice: Option<&Slice>) {
        let mut news = self.news();
        nothing("of a run", || {
            let mut left = self.of_runs(site, slice);
            left.extend(still(&mut news));
            left
        });
    }

    /// What there is of runs.
    pub(super) fn of_runs(&self, site: &Site, slice: Option<&Slice>) -> Vec<String> {
        let stay = [who::service(site), who::keeper(site)];
        let program = who::program(site).into_iter().filter(|pid| !stay.contains(&Some(*pid)));
        let scripts = site.agent().root.join("scripts").display().to_string();
        let of_scripts = host::with_words(|words| words.contains(&scripts) || words.contains(&self.mark));
        let mut left: Vec<String> = program.map(|pid| format!("process {pid} of the program")).collect();
        left.extend(of_scripts.into_iter().map(|pid| format!("process {pid} of a script")));
        left.extend(slice.map(Slice::runs).unwrap_or_default().into_iter().map(|run| format!("control group {run}")));
        left.extend(unfinished(site).into_iter().map(|name| format!("file {name}")));
        left
    }

    /// Waits until nothing at all is there of what has its files at `place`.
    #[track_caller]
    pub(super) fn nothing_is_left(&self, place: &str) {
        let mut news = self.news();
        nothing("at all", || {
            let ours = host::with_words(|words| words.contains(place) || words.contains(&self.mark));
            ours.into_iter().map(|pid| format!("process {pid}")).chain(still(&mut news)).collect()
        });
    }

    /// What there is now and was not. Others on this host come and go meanwhile; what is ours would stay.
    fn news(&self) -> BTreeSet<String> {
        belongings().difference(&self.belongings).cloned().collect()
    }
}

/// Waits until there is nothing to see, or says what.
#[track_caller]
fn nothing(what: &str, mut look: impl FnMut() -> Vec<String>) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let left = look();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "after {} s there still is, {what}: {left:#?}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Those that are still there of what was new.
fn still(news: &mut BTreeSet<String>) -> Vec<String> {
    if !news.is_empty() {
        let now = belongings();
        news.retain(|each| now.contains(each));
    }
    news.iter().cloned().collect()
}

/// What an executor makes in the group of whoever lends it one, to stay: it is there for runs to come.
const HOLDER: &str = "holder";

/// What the host has that a run could leave behind: mounts, and control groups.
fn belongings() -> BTreeSet<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut all: BTreeSet<String> = mounts.lines().map(|line| format!("mount {line}")).collect();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        folders.extend(below.filter(|entry| entry.file_name() != HOLDER).map(|entry| entry.path()));
        all.insert(format!("control group {}", folder.display()));
    }
    all
}

/// Files that only a job has that is under way, and files of no job. The agent's sweep removes those of a submission that
/// was killed; and a file that somebody was killed over before it had its name, when nobody can be at work on it any more.
fn unfinished(site: &Site) -> Vec<String> {
    let files = jobs::files(site);
    let has_record = |stem: &str| files.contains(&format!("{stem}.json"));
    let jobs = files.iter().filter(|name| !name.starts_with(".tmp-"));
    let stays = |name: &&String| {
        let (stem, suffix) = name.rsplit_once('.').unwrap();
        ["json", "stdout", "stderr", "lost"].contains(&suffix) && has_record(stem)
    };
    jobs.filter(|name| !stays(name)).cloned().collect()
}

/// The descriptors of the executor and its keeper, by what they lead to.
pub(super) fn descriptors(site: &Site) -> Vec<String> {
    let of = |pid: u32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string()))
    };
    let both = [who::service(site), who::keeper(site)];
    // Each start has a log of its own, which whoever has something to say opens once more.
    let log = site.agent().root.join("stderr.").display().to_string();
    let service_log = site.agent().root.join("executor.").display().to_string();
    let is_log = |path: &String| path.starts_with(&log) || path.starts_with(&service_log);
    let kind = |path: String| path.split(":[").next().unwrap_or_default().to_owned();
    let mut all: Vec<String> = both.into_iter().flatten().flat_map(of).filter(|path| !is_log(path)).map(kind).collect();
    all.sort();
    all
}

/// Waits until those are what they were.
#[track_caller]
pub(super) fn no_descriptors_but(site: &Site, before: &[String]) {
    nothing(&format!("of descriptors, other than {before:?}"), || {
        let now = descriptors(site);
        if now == before { Vec::new() } else { now }
    });
}
