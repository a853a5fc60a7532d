//! What this kernel offers for confining a process, found out without changing anything.

use super::call::{Numbers, call};
use super::{landlock, seccomp};

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The version of Landlock (landlock(7)).
    pub landlock: Option<u32>,
    /// Properties of a whole tree of mounts in one call: `mount_setattr(2)`, Linux 5.12.
    pub mount_setattr: bool,
    /// Filters on system calls: seccomp(2), on a machine that there is a filter for.
    pub seccomp: bool,
    /// User namespaces, of which more than none may be made (`user.max_user_namespaces`, namespaces(7)).
    pub user_namespaces: bool,
}

/// Asks the kernel. It takes a few microseconds.
#[must_use]
pub fn probe() -> Kernel {
    let says = |number, errno| call(number).is_err_and(|error| error.raw_os_error() == Some(errno));
    Kernel {
        landlock: landlock::version(),
        mount_setattr: says(Numbers::MountSetattrOfNothing, libc::EINVAL),
        seccomp: says(Numbers::SeccompWithoutFilter, libc::EFAULT) && seccomp::is_for_this_machine(),
        user_namespaces: std::fs::read_to_string("/proc/sys/user/max_user_namespaces")
            .is_ok_and(|most| most.trim().parse().is_ok_and(|most: u64| most > 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_changes_nothing_and_is_answered_alike_by_the_ways_that_are_used() {
        let filters = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().filter(|line| line.starts_with("Seccomp")).collect::<String>()
        };
        let before = filters();
        let kernel = probe();
        assert_eq!((kernel, filters()), (probe(), before));
        assert_eq!(kernel.landlock, landlock::version());
        assert!(
            kernel.mount_setattr && kernel.seccomp && kernel.user_namespaces,
            "the tests of the executor need all: {kernel:?}"
        );
    }
}
