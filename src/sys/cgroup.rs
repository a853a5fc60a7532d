//! Control groups, version 2 (cgroups(7), `admin-guide/cgroup-v2`): a group for each run that needs one.
//!
//! The kernel lets a group that holds processes hand no controller to groups below it. So a process that wants groups
//! below its own first moves into a leaf ([`settle`]), and those of the runs are the leaf's siblings. Under systemd that
//! needs `Delegate=yes`.
//!
//! Nor can a process move into a group that hands controllers down. systemd starts a service in the service's own group;
//! as long as a run of the service before it lives there, the start would fail. So another unit lends its group to the
//! runs (`LENT`), where it is installed, and the service's own hands nothing down. That unit has one process, which does
//! nothing: systemd removes a group without any.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

/// The leaf of the process that called [`settle`].
const LEAF: &str = "ctrl-exec-executor";
/// The group beside a service's own that is there for runs: that of the unit `ctrl-exec-runs.service`.
const LENT: &str = "ctrl-exec-runs.service";
/// The leaf of the process that keeps that group.
const HOLDER: &str = "holder";
/// Where the version 2 hierarchy is mounted: alone, or beside those of version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What the names of the groups of runs begin with.
const RUN: &str = "run-";
/// Attempts to remove a group whose last members are just leaving, and the pause between them.
const REMOVALS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

/// Resources that can be limited for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// `memory`.
    pub memory: bool,
    /// `pids`.
    pub processes: bool,
    /// `cpu`.
    pub cpu: bool,
}

impl Controllers {
    /// Those named in a list of the kernel's.
    #[must_use]
    pub fn listed(list: &str) -> Self {
        let has = |wanted| list.split_ascii_whitespace().any(|name| name == wanted);
        Self { memory: has("memory"), processes: has("pids"), cpu: has("cpu") }
    }

    fn enabling(self) -> String {
        let all = [(self.memory, "+memory"), (self.processes, "+pids"), (self.cpu, "+cpu")];
        all.into_iter().filter(|(wanted, _)| *wanted).map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    }
}

/// What a group may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, swap included.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// CPU time in percent of one CPU.
    pub cpu: Option<u32>,
}

/// The group below which this process may make groups.
#[derive(Clone, Debug)]
pub struct Delegation {
    mount: PathBuf,
    directory: PathBuf,
    /// It is another unit's, and no process's own.
    lent: bool,
}

/// Hands the controllers of the group for runs down, so that groups in it can be limited. Where that is this process's
/// own, the processes of this program that are in it move into a leaf. Groups of runs whose monitors were killed are
/// removed. Returns what can be limited now.
///
/// # Errors
/// There is no version 2 hierarchy, or the group is not this program's to divide: others are in it.
pub fn settle() -> io::Result<Controllers> {
    let here = Delegation::find()?;
    let _ = here.sweep(&|_| false);
    here.hand_down()
}

impl Delegation {
    /// Looks for it.
    ///
    /// # Errors
    /// There is no version 2 hierarchy, or this process's group is not visible.
    pub fn find() -> io::Result<Self> {
        Self::listed(Path::new("/proc/self/cgroup"))
    }

    /// As [`Delegation::find`], of another process.
    ///
    /// # Errors
    /// As there, or the process has ended.
    pub fn of(process: i32) -> io::Result<Self> {
        Self::listed(Path::new(&format!("/proc/{process}/cgroup")))
    }

    fn listed(list: &Path) -> io::Result<Self> {
        let is_version_2 = |path: &&&str| statfs(**path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let none = || io::Error::new(io::ErrorKind::Unsupported, "no version 2 control groups are mounted");
        let mount = PathBuf::from(MOUNTS.iter().find(is_version_2).ok_or_else(none)?);
        let own = fs::read_to_string(list)?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).ok_or_else(none)?;
        Ok(Self::below(mount, Path::new(own)))
    }

    /// Of a process whose group is `own`.
    fn below(mount: PathBuf, own: &Path) -> Self {
        let own = if own.ends_with(LEAF) { own.parent().unwrap_or(own) } else { own };
        let lent = own.parent().map(|slice| mount.join(slice).join(LENT)).filter(|lent| lent.is_dir());
        Self { lent: lent.is_some(), directory: lent.unwrap_or_else(|| mount.join(own)), mount }
    }

    /// Where the hierarchy is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// The directory of the group below which groups are made.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the host could hand to a group at all.
    ///
    /// # Errors
    /// The hierarchy is not readable.
    pub fn offered(&self) -> io::Result<Controllers> {
        Ok(Controllers::listed(&fs::read_to_string(self.mount.join("cgroup.controllers"))?))
    }

    /// What can be limited for groups made here. A lent group may have been made anew since [`settle`].
    ///
    /// # Errors
    /// The group is gone.
    pub fn controllers(&self) -> io::Result<Controllers> {
        let handed = self.handed_down()?;
        if self.lent && handed == Controllers::default() {
            // Without root's rights there is no more to it than to look.
            return Ok(self.hand_down().unwrap_or(handed));
        }
        Ok(handed)
    }

    fn handed_down(&self) -> io::Result<Controllers> {
        Ok(Controllers::listed(&fs::read_to_string(self.directory.join("cgroup.subtree_control"))?))
    }

    /// Hands down all that the group has itself.
    fn hand_down(&self) -> io::Result<Controllers> {
        let offered = Controllers::listed(&fs::read_to_string(self.directory.join("cgroup.controllers"))?);
        if self.handed_down()? == offered {
            return Ok(offered);
        }
        let leaf = self.directory.join(if self.lent { HOLDER } else { LEAF });
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => self.gather(&leaf.join("cgroup.procs"))?,
        }
        put(&self.directory.join("cgroup.subtree_control"), &offered.enabling())?;
        self.handed_down()
    }

    /// Moves everyone of this program, or whoever keeps a lent group. An agent that started its executor itself is in the
    /// same group, and with it the controllers could not be handed down.
    fn gather(&self, leaf: &Path) -> io::Result<()> {
        let program = fs::read_link("/proc/self/exe")?;
        let members = fs::read_to_string(self.directory.join("cgroup.procs"))?;
        let is_ours =
            |pid: &&str| self.lent || fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|other| other == program);
        for pid in members.lines().filter(is_ours) {
            match put(leaf, pid) {
                // It has just ended.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Removes the groups of runs whose monitor has ended: it removes its group itself, unless it was killed. That of one that
    /// lives may be empty too, since its run is only about to move in. Returns whether none is left but those of monitors that
    /// are `known`.
    #[must_use]
    pub fn sweep(&self, known: &dyn Fn(Pid) -> bool) -> bool {
        let Ok(entries) = fs::read_dir(&self.directory) else { return true };
        let monitor = |name: &str| Some(Pid::from_raw(name.strip_prefix(RUN)?.parse().ok()?));
        let runs = entries.flatten().filter_map(|entry| Some((monitor(entry.file_name().to_str()?)?, entry.path())));
        let left =
            runs.filter(|(monitor, run)| !known(*monitor) && (is_there(*monitor) || fs::remove_dir(run).is_err()));
        left.count() == 0
    }

    /// Makes the group of this process's run, with these limits.
    ///
    /// # Errors
    /// As [`Delegation::create`].
    pub fn create_for_run(&self, limits: Limits) -> io::Result<Group> {
        self.create(&format!("{RUN}{}", std::process::id()), limits)
    }

    /// Makes a group with these limits. One of that name that was left behind is replaced.
    ///
    /// # Errors
    /// A limit whose controller is missing, or no permission.
    pub fn create(&self, name: &str, limits: Limits) -> io::Result<Group> {
        let path = self.directory.join(name);
        // Only an empty one can be removed.
        drop(fs::remove_dir(&path));
        fs::create_dir(&path)?;
        let mut group = Group { entrance: None, path };
        group.limit(limits)?;
        group.entrance = Some(OpenOptions::new().write(true).open(group.path.join("cgroup.procs"))?);
        Ok(group)
    }
}

/// A group of processes. Dropping it removes it, if it is empty.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    entrance: Option<File>,
}

impl Group {
    fn limit(&self, limits: Limits) -> io::Result<()> {
        if let Some(bytes) = limits.memory {
            put(&self.path.join("memory.max"), &bytes.to_string())?;
            // Out of memory, the run ends as a whole instead of losing a process that the rest then waits for.
            put(&self.path.join("memory.oom.group"), "1")?;
            // A kernel without swap has no such file.
            match put(&self.path.join("memory.swap.max"), "0") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if let Some(most) = limits.processes {
            put(&self.path.join("pids.max"), &most.to_string())?;
        }
        if let Some(percent) = limits.cpu {
            put(&self.path.join("cpu.max"), &format!("{} 100000", u64::from(percent) * 1000))?;
        }
        Ok(())
    }

    /// Moves this process into the group. Works also where the file system can no longer be written to.
    ///
    /// # Errors
    /// The group is gone.
    pub fn enter(&self) -> io::Result<()> {
        self.entrance.as_ref().map_or(Ok(()), |mut entrance| entrance.write_all(b"0"))
    }

    /// Kills every member at once (Linux 5.14).
    ///
    /// # Errors
    /// The kernel is older.
    pub fn kill(&self) -> io::Result<()> {
        put(&self.path.join("cgroup.kill"), "1")
    }

    /// Whether the kernel has killed a member because the group was out of memory.
    #[must_use]
    pub fn ran_out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.is_some_and(|count| count.trim() != "0")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(PAUSE),
                // Whoever takes its name next tries again.
                _ => return,
            }
        }
    }
}

/// Whether there is a process of this number, one that nobody has waited for yet among them.
fn is_there(pid: Pid) -> bool {
    kill(pid, None) != Err(Errno::ESRCH)
}

/// The kernel takes such a file's new content as one write.
fn put(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::process::{self, End, Fork, Reaped};

    /// Whether this is a machine that lends every controller, as `cargo xtask vm` says of its own. There no test may
    /// leave anything out.
    pub(crate) fn all_are_lent() -> bool {
        std::env::var_os("CTRL_EXEC_ALL_CONTROLLERS").is_some()
    }

    #[test]
    fn controllers_are_read_and_asked_for_by_name() {
        let all = Controllers::listed("cpuset cpu io memory hugetlb pids rdma");
        assert_eq!(all, Controllers { memory: true, processes: true, cpu: true });
        assert_eq!(all.enabling(), "+memory +pids +cpu");
        assert_eq!(Controllers::listed("cpuset\n"), Controllers::default());
    }

    #[test]
    fn runs_have_the_group_that_is_lent_to_them_or_the_service_s_own() {
        let mount = tempfile::tempdir().unwrap();
        let found = |own: &str| {
            let here = Delegation::below(mount.path().to_owned(), Path::new(own));
            (here.directory.strip_prefix(mount.path()).unwrap().display().to_string(), here.lent)
        };
        let leaf = format!("slice/exec.service/{LEAF}");
        for own in ["slice/exec.service", &leaf] {
            assert_eq!(found(own), ("slice/exec.service".to_owned(), false), "{own}");
        }
        assert_eq!(found(""), (String::new(), false));
        fs::create_dir_all(mount.path().join("slice").join(LENT)).unwrap();
        for own in ["slice/exec.service", &leaf] {
            assert_eq!(found(own), (format!("slice/{LENT}"), true), "{own}");
        }
        assert!(!found("other/exec.service").1);
    }

    #[test]
    fn groups_are_swept_whose_monitors_have_ended_and_no_others() {
        let mount = tempfile::tempdir().unwrap();
        let here = Delegation::below(mount.path().to_owned(), Path::new(""));
        let group = |name: &str| mount.path().join(name);
        // It lives, and its run has not moved in yet.
        let own = Pid::this();
        let (mine, other) = (format!("{RUN}{own}"), format!("{RUN}x"));
        for name in [mine.as_str(), other.as_str(), LEAF] {
            fs::create_dir(group(name)).unwrap();
        }
        assert!(!here.sweep(&|_| false) && here.sweep(&|pid| pid == own) && group(&mine).exists());
        let text = process::tests::in_a_process("swept", || {
            let Fork::Parent(ended) = process::fork().unwrap() else { process::end(0) };
            let left = group(&format!("{RUN}{ended}"));
            fs::create_dir(&left).unwrap();
            let before = here.sweep(&|pid| pid == own);
            while !matches!(process::reap().unwrap(), Reaped::Child(..)) {
                std::thread::yield_now();
            }
            fs::create_dir(left.join("member")).unwrap();
            let with_a_member = here.sweep(&|pid| pid == own);
            fs::remove_dir(left.join("member")).unwrap();
            format!("{before} {with_a_member} {} {}", here.sweep(&|pid| pid == own), left.exists())
        });
        assert_eq!(text, "false false true false");
        assert!([&mine, &other].into_iter().all(|name| group(name).exists()) && group(LEAF).exists());
    }

    /// In the group of a service, beside the one that is lent to runs.
    fn in_a_service(own: &Path) -> String {
        put(&own.join("cgroup.procs"), "0").unwrap();
        let all = settle().unwrap();
        let here = Delegation::find().unwrap();
        let run = here.create_for_run(Limits { memory: Some(1 << 26), ..Limits::default() }).unwrap();
        let Fork::Parent(script) = process::fork().unwrap() else {
            run.enter().unwrap();
            loop {
                nix::unistd::pause();
            }
        };
        let entered = || fs::read_to_string(run.path.join("cgroup.procs")).unwrap().contains(&script.to_string());
        while !entered() {
            std::thread::yield_now();
        }
        // As the service manager starts the service anew.
        let again = put(&own.join("cgroup.procs"), "0");
        let shown = format!("{} {} {:?}", all == here.offered().unwrap(), here.lent, again.is_ok());
        run.kill().unwrap();
        while !matches!(process::reap().unwrap(), Reaped::Child(..)) {
            std::thread::yield_now();
        }
        shown
    }

    #[test]
    fn a_run_in_a_lent_group_does_not_keep_its_service_from_being_started_anew() {
        if !all_are_lent() {
            // A host that hands this test no controllers; the virtual machine does.
            return;
        }
        let slice = Delegation::find().unwrap().mount.join("slice");
        let (own, lent) = (slice.join("exec.service"), slice.join(LENT));
        let text = process::tests::in_a_process("lent", || {
            for group in [&slice, &own, &lent] {
                fs::create_dir(group).unwrap();
            }
            put(&slice.join("cgroup.subtree_control"), "+memory +pids +cpu").unwrap();
            let with = in_a_service(&own);
            fs::remove_dir(lent.join(HOLDER)).unwrap();
            fs::remove_dir(&lent).unwrap();
            // Without it, what it is for.
            format!("{with}, {}", in_a_service(&own))
        });
        assert_eq!(text, "true true true, true false false");
    }

    #[test]
    fn the_members_of_a_group_are_killed_and_the_group_is_removed() {
        if Delegation::find().is_err() {
            // A host without version 2 groups: there every limit on a whole run refuses it.
            assert!(!all_are_lent());
            return;
        }
        let text = process::tests::in_a_process("group", || {
            let group = Delegation::find().unwrap().create("ctrl-exec-test", Limits::default()).unwrap();
            let path = group.path.clone();
            if let Fork::Child = process::fork().unwrap() {
                group.enter().unwrap();
                process::tests::chain_of_sessions(2);
                group.kill().unwrap();
                loop {
                    nix::unistd::pause();
                }
            }
            let end = loop {
                match process::reap().unwrap() {
                    Reaped::Child(_, end) => break end,
                    Reaped::Running => std::thread::yield_now(),
                    Reaped::Nobody => panic!("nobody"),
                }
            };
            let ran_out = group.ran_out_of_memory();
            drop(group);
            format!("{} {ran_out} {}", end == End::Signalled(9), path.exists())
        });
        assert_eq!(text, "true false false");
    }
}
