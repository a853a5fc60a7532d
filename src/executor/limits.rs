//! By which means a run's limits are enforced, or that they cannot be. Pure.

use super::confinement::Confinement;
use crate::sys::cgroup::{Controllers, Limits};

/// `CAP_SYS_RESOURCE`, whose holder raises every limit of its own as it likes (getrlimit(2)).
const RAISES: u8 = 24;
/// It and `CAP_SYS_ADMIN`, whose holders `RLIMIT_NPROC` does not bind (getrlimit(2)); and `CAP_SETUID`, whose holder becomes
/// root, or one account after another, each with a count of its own.
const UNBOUND: [u8; 3] = [7, 21, RAISES];

/// How limits are enforced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Means {
    /// For the run as a whole, by a control group.
    pub(super) group: Option<Limits>,
    /// Processes of the run's user, by `RLIMIT_NPROC`.
    pub(super) processes_of_user: Option<u64>,
    /// Open files of each process, by `RLIMIT_NOFILE`.
    pub(super) files: Option<u64>,
}

/// A limit that nothing here can enforce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unenforceable {
    /// The profile's key.
    pub(super) key: &'static str,
    /// Why, and what would help.
    pub(super) why: String,
}

/// Whether the limit on processes of a user binds the script.
pub(super) fn bound(confinement: &Confinement) -> bool {
    !confinement.person().uid.is_root() && !UNBOUND.iter().any(|cap| confinement.caps().has(*cap))
}

/// Whether the limit on open files holds: the script cannot raise it.
pub(super) fn files_hold(confinement: &Confinement) -> bool {
    !confinement.caps().has(RAISES)
}

/// Chooses. `most_files` is the hard limit on open files that the executor has, and `controllers` are those that groups here
/// can have; each is asked for only if a limit needs it.
///
/// A number of processes is also enforced by the limit on processes of a user, if there are no groups: never more are
/// started, though others of the same user count too. Memory and CPU time of a whole run have no such second means.
pub(super) fn means(
    confinement: &Confinement,
    most_files: impl FnOnce() -> u64,
    controllers: impl FnOnce() -> Controllers,
) -> Result<Means, Unenforceable> {
    let profile = confinement.profile();
    let (memory, processes, cpu) = (profile.memory_max, profile.processes_max, profile.cpu_max);
    if profile.files_max.is_some() && !files_hold(confinement) {
        let why = "with CAP_SYS_RESOURCE the script could raise it as it likes: take one of the two out of the profile";
        return Err(Unenforceable { key: "files_max", why: why.to_owned() });
    }
    if let Some((wanted, most)) =
        profile.files_max.map(|wanted| (wanted, most_files())).filter(|(wanted, most)| wanted > most)
    {
        return Err(Unenforceable { key: "files_max", why: above(wanted, most) });
    }
    let mut means = Means { files: profile.files_max, ..Means::default() };
    if memory.is_none() && processes.is_none() && cpu.is_none() {
        return Ok(means);
    }
    let available = controllers();
    let missing = |key, controller: &str, more: &str| Unenforceable {
        key,
        why: format!(
            "this host hands the executor no '{controller}' controller of version 2 control groups{more}: \
             give its service 'Delegate=yes' on a host with cgroup v2, or take {key} out of the profile"
        ),
    };
    if memory.is_some() && !available.memory {
        return Err(missing("memory_max", "memory", ""));
    }
    if cpu.is_some() && !available.cpu {
        return Err(missing("cpu_max", "cpu", ""));
    }
    let bound = bound(confinement);
    match processes {
        Some(_) if available.processes => {}
        Some(most) if bound => means.processes_of_user = Some(most),
        Some(_) => {
            let more = ", and a limit on its user's does not bind this script (root, CAP_SETUID, CAP_SYS_ADMIN, \
                CAP_SYS_RESOURCE)";
            return Err(missing("processes_max", "pids", more));
        }
        None => {}
    }
    // The init of the run's process namespace is not in the group.
    let limits = Limits { memory, processes: processes.filter(|_| available.processes), cpu };
    means.group = (limits != Limits::default()).then_some(limits);
    Ok(means)
}

/// Nobody sets a limit above his own hard one who has given up the right to.
fn above(wanted: u64, most: u64) -> String {
    format!(
        "{wanted} is above the executor's own hard limit of {most} open files: take no more than that, or raise it \
         ('LimitNOFILE=' of its service, 'ulimit -Hn' where it is started)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::confinements::tests::confinement;

    const ALL: Controllers = Controllers { memory: true, processes: true, cpu: true };

    fn judged(profile: &str, controllers: Controllers) -> Result<Means, &'static str> {
        let confinement = confinement(&format!("run_as = backup\n{profile}")).unwrap();
        means(&confinement, || 100, || controllers).map_err(|limit| limit.key)
    }

    #[test]
    fn a_group_enforces_what_its_controllers_can() {
        let found = judged("memory_max = 8MiB\nprocesses_max = 9\ncpu_max = 50\nfiles_max = 20", ALL).unwrap();
        let limits = Limits { memory: Some(8 << 20), processes: Some(9), cpu: Some(50) };
        assert_eq!(found, Means { group: Some(limits), processes_of_user: None, files: Some(20) });
    }

    #[test]
    fn a_limit_on_files_that_the_script_could_raise_is_refused() {
        let dangerous = "caps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes";
        assert_eq!(judged("files_max = 20\ncaps = CAP_SYS_RESOURCE", ALL), Err("files_max"));
        assert_eq!(judged(&format!("files_max = 20\n{dangerous}"), ALL).unwrap().files, Some(20));
        assert_eq!(judged("caps = CAP_SYS_RESOURCE", ALL), Ok(Means::default()));
    }

    #[test]
    fn a_limit_on_files_above_the_executors_own_is_refused() {
        assert_eq!(judged("files_max = 100", ALL).unwrap().files, Some(100));
        assert_eq!(judged("files_max = 101", ALL), Err("files_max"));
        let none = confinement("run_as = backup").unwrap();
        assert_eq!(means(&none, || panic!("asked"), || ALL), Ok(Means::default()));
    }

    #[test]
    fn without_limits_on_the_whole_nothing_is_asked() {
        let confinement = confinement("run_as = backup\nfiles_max = 20").unwrap();
        let found = means(&confinement, || 20, || panic!("asked")).unwrap();
        assert_eq!(found, Means { files: Some(20), ..Means::default() });
    }

    #[test]
    fn what_nothing_enforces_is_refused_and_processes_have_a_second_means() {
        let none = Controllers::default();
        assert_eq!(judged("memory_max = 8MiB", none), Err("memory_max"));
        assert_eq!(judged("cpu_max = 50", none), Err("cpu_max"));
        assert_eq!(judged("processes_max = 9", none).unwrap().processes_of_user, Some(9));
        for cap in ["CAP_SYS_RESOURCE", "CAP_SYS_ADMIN", "CAP_SETUID"] {
            let profile = format!("processes_max = 9\ncaps = {cap}\nallow_dangerous_caps = yes");
            assert_eq!(judged(&profile, none), Err("processes_max"), "{cap}");
            assert_eq!(judged(&profile, ALL).unwrap().processes_of_user, None, "{cap}");
        }
        let other = judged("processes_max = 9\ncaps = CAP_SETGID", none).unwrap();
        assert_eq!(other.processes_of_user, Some(9));
    }
}
