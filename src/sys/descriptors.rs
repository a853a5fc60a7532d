//! How many descriptors a process may have open (`RLIMIT_NOFILE`, getrlimit(2)).
//!
//! The usual soft limit is 1024, for the sake of programs that use select(2); the hard one is far higher. A process
//! that serves many at once raises its own, and gives its children the limit that it was started with.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit to `wanted`, or as far as it goes. A limit that is higher already stays. Returns what it was.
///
/// # Errors
/// The kernel refuses, which it does not for a limit below the hard one.
pub fn raise(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(soft)
}

/// How many this process may have.
///
/// # Errors
/// None that the kernel is known to give.
pub fn allowed() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// The most that this process can make the limit without the right to raise it: its hard limit.
///
/// # Errors
/// As [`allowed`].
pub fn most() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.1)
}

/// The same of another process, by `/proc/PID/limits` (proc(5)).
///
/// # Errors
/// It is gone, or none of this user's business.
pub fn most_of(process: i32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/limits"))?;
    hard(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `Max open files  SOFT  HARD  files`.
fn hard(limits: &str) -> Option<u64> {
    let words = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match words.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Puts the limit back to what it was in the process that raised it.
///
/// # Errors
/// As [`raise`].
pub fn put_back(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}

/// Makes `most` the limit, which cannot be raised again without the right to.
///
/// # Errors
/// It is above the hard limit, and this process may not raise that.
pub fn limit(most: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise(1).unwrap(), soft);
        assert_eq!(allowed().unwrap(), soft);
        put_back(soft).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (soft, hard));
    }

    #[test]
    fn the_hard_limit_of_a_process_is_the_one_that_it_tells_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(most_of(own).unwrap(), most().unwrap());
        assert_eq!(hard("Limit  Soft\nMax open files   1024   unlimited   files\n"), Some(u64::MAX));
        assert!(most_of(i32::MAX).is_err());
    }
}
