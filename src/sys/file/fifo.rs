//! FIFOs that wake a process which may have been started by one that is long gone (fifo(7)).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::sys::stat::Mode;

use super::FileError;

/// Makes a FIFO for this user alone and opens it for whoever will wait for a byte in it.
///
/// It is open for writing too, which Linux allows: so it never reads as ended, however many writers come and go.
///
/// # Errors
/// Something has that name, or the file system has no FIFOs.
pub fn make_fifo(path: &Path) -> Result<OwnedFd, FileError> {
    let fail = |action| move |source| FileError::new(path, action, source);
    nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io::Error::from).map_err(fail("create"))?;
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
    opened.map(OwnedFd::from).map_err(fail("open"))
}

/// Puts a byte into a FIFO; whether anybody waits for one.
///
/// # Errors
/// It cannot be opened or written, for other reasons than that it or its reader is gone.
pub fn nudge(path: &Path) -> Result<bool, FileError> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let put = || OpenOptions::new().write(true).custom_flags(flags).open(path)?.write_all(b"x");
    match put() {
        // Full of bytes that nobody has read yet: as good as one more.
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(source) => Err(FileError::new(path, "write to", source)),
    }
}

/// Without a reader opening fails with `ENXIO` (fifo(7)); one that goes away in between breaks the pipe.
fn is_gone(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::BrokenPipe) || error.raw_os_error() == Some(libc::ENXIO)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::{self, Ready};

    #[test]
    fn a_nudge_wakes_the_waiting_and_finds_out_when_there_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        assert!(!nudge(&path).unwrap());
        let waiting = make_fifo(&path).unwrap();
        let look = || poll::readable([Some(waiting.as_fd())], Some(Duration::ZERO)).unwrap();
        assert_eq!(look(), [Ready::default()]);
        for _ in 0..70_000 {
            assert!(nudge(&path).unwrap());
        }
        assert_eq!(look(), [Ready { readable: true, closed: false }]);
        drop(waiting);
        // Whoever another test forks has it open until it has become its program.
        while nudge(&path).unwrap() {
            std::thread::yield_now();
        }
        assert!(make_fifo(&path).unwrap_err().is_already_there());
    }
}
