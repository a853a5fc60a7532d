//! Control groups that the host lends to tests: on many there are none, in the virtual machine of `cargo xtask vm` all.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where they are.
const TOP: &str = "/sys/fs/cgroup";
/// What a group that may divide itself hands down.
const ALL: [&str; 3] = ["memory", "pids", "cpu"];

/// Whether the host lends every controller that a profile can ask for. Where it has to, this does not return otherwise.
pub(crate) fn are_lent() -> bool {
    let lent = std::fs::read_to_string(Path::new(TOP).join("cgroup.subtree_control")).unwrap_or_default();
    let all = ALL.iter().all(|name| lent.split_whitespace().any(|word| word == *name));
    assert!(all || std::env::var_os("CTRL_EXEC_ALL_CONTROLLERS").is_none(), "{lent}");
    all
}

/// A group of this test's own, with everything below it. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Group(PathBuf);

impl Group {
    /// Nothing where the host lends no controllers.
    pub(crate) fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !are_lent() {
            return None;
        }
        let name = format!("ctrl-exec-it-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let group = Self(Path::new(TOP).join(name));
        std::fs::create_dir(&group.0).unwrap();
        Some(group)
    }

    pub(crate) fn place(&self) -> &Path {
        &self.0
    }

    /// What has a shell go in, and whoever it becomes.
    pub(crate) fn entering(place: &Path) -> String {
        format!("echo $$ > {}/cgroup.procs", place.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Also what is below it. What still has a member stays.
fn remove(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove(&path));
    drop(std::fs::remove_dir(group));
}

/// A slice as systemd has it: the group of a service that can be started anew at any time, and beside it the one that is
/// lent to its runs.
#[derive(Debug)]
pub(crate) struct Slice(Group);

impl Slice {
    /// Nothing where the host lends no controllers.
    pub(crate) fn new() -> Option<Self> {
        let slice = Self(Group::new()?);
        let handed: Vec<String> = ALL.iter().map(|name| format!("+{name}")).collect();
        std::fs::write(slice.0.place().join("cgroup.subtree_control"), handed.join(" ")).unwrap();
        for group in [slice.service(), slice.lent()] {
            std::fs::create_dir(group).unwrap();
        }
        Some(slice)
    }

    /// Where the service is started.
    pub(crate) fn service(&self) -> PathBuf {
        self.0.place().join("ctrl-exec.service")
    }

    fn lent(&self) -> PathBuf {
        self.0.place().join("ctrl-exec-runs.service")
    }

    /// The names of the groups of runs that there are.
    pub(crate) fn runs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.lent()).unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("run-"))
            .collect()
    }
}
