//! Bytes that travel to another process as a file that is on no disk (`memfd_create(2)`).

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A file that holds `bytes`, at its beginning, and that nobody can change any more.
///
/// # Errors
/// Out of memory or descriptors.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("input", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_from_its_beginning_and_cannot_be_changed() {
        let mut file = File::from(sealed(b"context").unwrap());
        assert_eq!(io::read_to_string(&file).unwrap(), "context");
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
    }
}
