//! What there is no more of where the kernel says "try again" or "no space left": which limit that is, and where it is set. It is
//! asked when something has failed, and costs nothing before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::Uid;

use super::capability;

/// Where control groups count processes: of version 2, beside those of version 1, and of version 1, with what their lines in
/// `/proc/PID/cgroup` have before the path (cgroups(7)).
const GROUPS: [(&str, &str); 3] =
    [("/sys/fs/cgroup", ":"), ("/sys/fs/cgroup/unified", ":"), ("/sys/fs/cgroup/pids", "pids:")];
/// `CAP_SYS_ADMIN` and `CAP_SYS_RESOURCE`, whose holders `RLIMIT_NPROC` does not bind, as it does not bind root (getrlimit(2)).
const UNBOUND: [u8; 2] = [21, 24];

/// Why no process could be made (fork(2), clone(2)), with what can be done about it.
#[must_use]
pub fn of_processes(error: &io::Error) -> Option<String> {
    match errno(error) {
        Errno::EAGAIN => Some(too_many_processes()),
        Errno::ENOSPC => {
            let most = setting("user/max_pid_namespaces");
            let why = "there are as many process namespaces as may be: raise sysctl user.max_pid_namespaces";
            Some(format!("{why} ({most})"))
        }
        _ => None,
    }
}

/// Why a timer, for which a signal has to wait, could not be made (`timer_create(2)`), with what can be done about it.
#[must_use]
pub fn of_signals(error: &io::Error) -> Option<String> {
    if errno(error) != Errno::EAGAIN {
        return None;
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let waiting = status.lines().find_map(|line| line.strip_prefix("SigQ:")).unwrap_or_default();
    let (queued, most) = waiting.trim().split_once('/').unwrap_or(("?", "?"));
    let uid = Uid::current();
    Some(format!(
        "as many signals wait for processes of uid {uid} as may ({queued}, and {most} may; timers count too): end \
         those that hold them (SigQ in /proc/PID/status), or raise 'LimitSIGPENDING=' of the service ('ulimit -i')"
    ))
}

/// Which limits on namespaces there are, where one of several kinds could not be made for want of room (namespaces(7)).
#[must_use]
pub fn of_namespaces(error: &io::Error) -> Option<String> {
    /// Whatever a run has of its own besides its process namespace.
    const KINDS: [&str; 5] = ["user", "mnt", "ipc", "net", "uts"];
    let named =
        |kind: &str| format!("user.max_{kind}_namespaces ({})", setting(&format!("user/max_{kind}_namespaces")));
    let why = "there are as many namespaces of a kind as may be: raise the one of these sysctls that it is";
    (errno(error) == Errno::ENOSPC).then(|| format!("{why}: {}", KINDS.map(named).join(", ")))
}

fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn setting(name: &str) -> String {
    number(&Path::new("/proc/sys").join(name)).map_or_else(|| "?".to_owned(), |number| number.to_string())
}

/// A number that stands alone in a file; none where it is a word, such as `max`.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The limit that has been reached; if several could be, all of them.
fn too_many_processes() -> String {
    let lists = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if let Some(group) = GROUPS.iter().find_map(|(mount, before)| full(Path::new(mount), before, &lists)) {
        return group;
    }
    // The fourth field: those that run, and all (proc_loadavg(5)).
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let all = load.split(' ').nth(3).and_then(|tasks| tasks.split_once('/')?.1.parse().ok()).unwrap_or(0);
    for name in ["threads-max", "pid_max"] {
        if let Some(most) = number(&Path::new("/proc/sys/kernel").join(name)).filter(|most| is_reached(all, *most)) {
            return format!("the host has {all} of the {most} processes that it may have: raise sysctl kernel.{name}");
        }
    }
    let uid = Uid::current();
    match getrlimit(Resource::RLIMIT_NPROC) {
        Ok((most, _)) if is_bound(uid) && most != RLIM_INFINITY => {
            format!("uid {uid} has as many processes as it may ({most}): raise 'LimitNPROC=' of the service ('ulimit -u')")
        }
        _ => "there are as many processes as may be: raise 'TasksMax=' of the service, '--pids-limit' of the container, or \
              sysctl kernel.threads-max or kernel.pid_max"
            .to_owned(),
    }
}

/// Whether so many are as good as all: some may have ended since.
const fn is_reached(count: u64, most: u64) -> bool {
    most.saturating_sub(count) <= most / 32
}

fn is_bound(uid: Uid) -> bool {
    !uid.is_root() && UNBOUND.iter().all(|cap| !capability::is_in_force(*cap).unwrap_or(true))
}

/// The group of this process, or the one above it, that has all the processes that it may have.
fn full(mount: &Path, before: &str, lists: &str) -> Option<String> {
    let own = lists.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(before)?.strip_prefix('/'))?;
    let groups = Path::new(own).ancestors().map(|group| mount.join(group));
    let is_full = |group: &PathBuf| {
        let most = number(&group.join("pids.max"))?;
        let count = number(&group.join("pids.current")).filter(|count| is_reached(*count, most))?;
        Some(format!(
            "the control group {} has {count} of the {most} processes that it may have: raise 'TasksMax=' of the service, or \
             '--pids-limit' of the container",
            group.display()
        ))
    };
    groups.filter(|group| group.is_dir()).find_map(|group| is_full(&group))
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::setrlimit;
    use nix::unistd::setresuid;

    use super::*;
    use crate::sys::file::{self, Access};
    use crate::sys::process;
    use crate::sys::user;

    #[test]
    fn a_full_group_is_named_wherever_above_the_process_it_is() {
        let mount = tempfile::tempdir().unwrap();
        let put = |group: &str, most: &str, count: &str| {
            let group = mount.path().join(group);
            fs::create_dir_all(&group).unwrap();
            for (name, text) in [("pids.max", most), ("pids.current", count)] {
                file::write_atomic(&group.join(name), text.as_bytes(), Access::public()).unwrap();
            }
        };
        put("a/b", "max\n", "9\n");
        put("a", "10\n", "9\n");
        let told = |before, lists| full(mount.path(), before, lists);
        assert_eq!(told(":", "0::/a/b\n"), None);
        put("a", "9\n", "9\n");
        let wanted = format!("the control group {}/a has 9 of the 9 processes", mount.path().display());
        for (before, lists) in [(":", "0::/a/b\n"), (":", "1:cpu:/x\n0::/a\n"), ("pids:", "5:pids:/a/b\n0::/\n")] {
            let why = told(before, lists).unwrap();
            assert!(why.starts_with(&wanted) && why.contains("TasksMax=") && why.contains("--pids-limit"), "{why}");
        }
        assert_eq!(told(":", "0::/\n"), None);
        assert_eq!(told("pids:", "0::/a\n"), None);
    }

    #[test]
    fn whoever_may_have_no_more_processes_is_told_of_the_limit_of_its_account() {
        if !user::tests::has_root() {
            return;
        }
        let text = process::tests::in_a_process("processes", || {
            setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
            let uid = Uid::from_raw(54_321);
            setresuid(uid, uid, uid).unwrap();
            process::fork().err().and_then(|error| of_processes(&error)).unwrap_or_default()
        });
        // Where a control group is full as well, that is what is told.
        assert!(text.starts_with("uid 54321 has as many processes as it may (0): raise 'LimitNPROC='"), "{text}");
    }

    #[test]
    fn whoever_may_have_no_more_timers_is_told_how_many_signals_wait() {
        let text = process::tests::in_a_process("signals", || {
            setrlimit(Resource::RLIMIT_SIGPENDING, 0, 0).unwrap();
            let made = process::end_unless_program_within(std::time::Duration::from_secs(1000));
            made.err().and_then(|error| of_signals(&error)).unwrap_or_default()
        });
        assert!(text.contains("signals wait for processes of uid ") && text.contains("and 0 may"), "{text}");
        assert!(text.contains("LimitSIGPENDING="), "{text}");
    }

    #[test]
    fn namespaces_are_told_with_what_the_host_allows_and_other_errors_are_left_as_they_are() {
        let space = io::Error::from(Errno::ENOSPC);
        assert!(of_processes(&space).unwrap().contains("raise sysctl user.max_pid_namespaces ("));
        let told = of_namespaces(&space).unwrap();
        assert!(told.contains("user.max_user_namespaces (") && !told.contains('?'), "{told}");
        let other = io::Error::from(Errno::EPERM);
        assert_eq!((of_processes(&other), of_signals(&other), of_namespaces(&other)), (None, None, None));
    }
}
