//! The agents that serve with a configuration, and which executor each of them has started.
//!
//! What a process is called and whose it is, everybody may see (`proc(5)`), and whoever has the agent's account may give
//! processes of his own any words. So an executor counts as root's by its account, and by what its agent cannot have:
//! whoever has renounced new privileges has no child with root's rights but one from before.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::running;
use crate::cli::role::{self, Role};

/// An agent that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Serving {
    /// Its process.
    pub(super) process: u32,
    /// Its account.
    pub(super) uid: u32,
    /// The executor that it has started, if there is one now.
    pub(super) executor: Option<Rank>,
}

/// An executor's rights, the fewer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// The agent's own.
    Agents,
    /// Root's.
    Root,
}

/// Every agent that serves with the configuration at `config`, as far as this process may see them.
pub(super) fn agents(config: &Path) -> Vec<Serving> {
    let Ok(file) = fs::metadata(config) else { return Vec::new() };
    let children: Vec<Child> = running::numbers().filter_map(Child::of).collect();
    let parents = children.iter().filter(|child| child.reads(&file)).map(|child| child.facts.parent);
    let mut all = running::processes(config);
    all.extend(parents.filter(|parent| matches!(argv(*parent), Some((Role::Agent, _)))));
    all.sort_unstable();
    all.dedup();
    let serving = |process: u32| {
        let facts = Facts::of(process)?;
        let of_it = children.iter().filter(|child| child.facts.parent == process);
        let executor = of_it.filter_map(|child| child.rank(&facts)).min();
        Some(Serving { process, uid: facts.uid, executor })
    };
    all.into_iter().filter_map(serving).collect()
}

/// A process with the words of an executor that an agent starts.
struct Child {
    process: u32,
    facts: Facts,
    private: bool,
    config: PathBuf,
}

impl Child {
    fn of(process: u32) -> Option<Self> {
        let (role, words) = argv(process)?;
        let private = match role {
            Role::PrivateExecutor => true,
            Role::OwnExecutor => false,
            _ => return None,
        };
        Some(Self { process, facts: Facts::of(process)?, private, config: words.first()?.into() })
    }

    /// Whether it reads this configuration, as it sees it itself: it may have another root.
    fn reads(&self, file: &Metadata) -> bool {
        let same = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()) == (file.dev(), file.ino()));
        let Ok(below) = self.config.strip_prefix("/") else { return false };
        match same(&Path::new("/proc").join(self.process.to_string()).join("root").join(below)) {
            // Whoever may not look takes it for one of this host if it is in no process namespace of its own.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.facts.here && same(&self.config).unwrap_or(false)
            }
            found => found.unwrap_or(false),
        }
    }

    /// What it is to the agent that is its parent; nothing where it only says that it is root's.
    fn rank(&self, agent: &Facts) -> Option<Rank> {
        let proven = self.facts.uid == 0 && (agent.renounced || agent.uid == 0);
        if self.private { Some(Rank::Agents) } else { proven.then_some(Rank::Root) }
    }
}

/// What everybody may know of a process: `proc_pid_status(5)`.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    parent: u32,
    uid: u32,
    /// It gets no new privileges by executing anything.
    renounced: bool,
    /// It is in the process namespace of whoever looks.
    here: bool,
}

impl Facts {
    fn of(process: u32) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
    }

    fn read(status: &str) -> Option<Self> {
        let values = |name: &str| {
            let mut lines = status.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(found, _)| *found == name).map(|(_, values)| values.split_ascii_whitespace())
        };
        Some(Self {
            parent: values("PPid")?.next()?.parse().ok()?,
            // The effective one is the second.
            uid: values("Uid")?.nth(1)?.parse().ok()?,
            renounced: values("NoNewPrivs").is_some_and(|mut values| values.next() == Some("1")),
            here: values("NStgid").is_some_and(|values| values.count() == 1),
        })
    }
}

fn argv(process: u32) -> Option<(Role, Vec<std::ffi::OsString>)> {
    let words = running::strings(&fs::read(format!("/proc/{process}/cmdline")).ok()?);
    Some(role::of(&words))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\texe\nPPid:\t7\nUid:\t5\t0\t5\t5\nGid:\t1\t1\t1\t1\nNStgid:\t9\t2\nNoNewPrivs:\t1\n";

    #[test]
    fn what_the_kernel_says_of_a_process_is_read() {
        let facts = Facts { parent: 7, uid: 0, renounced: true, here: false };
        assert_eq!(Facts::read(STATUS), Some(facts));
        assert!(Facts::read(&STATUS.replace("\t9\t2", "\t9")).unwrap().here);
        assert!(!Facts::read(&STATUS.replace("Privs:\t1", "Privs:\t0")).unwrap().renounced);
        assert_eq!(Facts::read("Name:\tx\n"), None);
        let own = Facts::of(std::process::id()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }

    /// Words are anybody's to choose, and a set-user-ID program is root's for whoever starts it.
    #[test]
    fn an_executor_is_root_s_by_what_its_agent_cannot_have() {
        let facts = |uid, renounced| Facts { parent: 7, uid, renounced, here: true };
        let rank = |private, uid, agent: Facts| {
            Child { process: 8, facts: facts(uid, false), private, config: PathBuf::new() }.rank(&agent)
        };
        assert_eq!(rank(false, 0, facts(5, true)), Some(Rank::Root));
        assert_eq!(rank(false, 0, facts(0, false)), Some(Rank::Root));
        assert_eq!(rank(false, 0, facts(5, false)), None);
        assert_eq!(rank(false, 5, facts(5, true)), None);
        assert_eq!(rank(true, 5, facts(5, false)), Some(Rank::Agents));
        assert_eq!(rank(true, 0, facts(5, true)), Some(Rank::Agents));
        assert!(Rank::Agents < Rank::Root);
    }
}
