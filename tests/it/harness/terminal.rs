//! Pseudo-terminals.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::OFlag;

/// Both ends of a pseudo-terminal (pty(7)), the operator's first. Neither is passed on to the commands that other tests start meanwhile: a
/// terminal is hung up when its last operator's end is closed.
pub(crate) fn pair() -> (File, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let keyboard = nix::pty::posix_openpt(flags).unwrap();
    nix::pty::grantpt(&keyboard).unwrap();
    nix::pty::unlockpt(&keyboard).unwrap();
    let name = nix::pty::ptsname_r(&keyboard).unwrap();
    let terminal = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name).unwrap();
    (File::from(OwnedFd::from(keyboard)), terminal)
}
