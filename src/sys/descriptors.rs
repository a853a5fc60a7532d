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
}
