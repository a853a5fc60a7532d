//! What is in a file, as a SHA-256 digest, together with which file and which state of it that was.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use sha2::{Digest, Sha256};

use super::Identity;

/// Bytes read at a time; all the memory that a digest takes.
const STEP: usize = 64 * 1024;

/// One state of one file: a write, and a change of owner or mode, makes another (inode(7): every write moves `ctime`,
/// and nobody can set that). Two writes within one tick of the kernel's clock can leave the same state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    identity: Identity,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    /// Of the file that `path` leads to now, following symbolic links.
    ///
    /// # Errors
    /// There is none, or a directory on the way may not be searched.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|facts| Self::from_facts(&facts))
    }

    /// Which file it is of.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes in it.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    fn from_facts(facts: &std::fs::Metadata) -> Self {
        Self {
            identity: Identity::from_facts(facts),
            size: facts.size(),
            modified: (facts.mtime(), facts.mtime_nsec()),
            changed: (facts.ctime(), facts.ctime_nsec()),
        }
    }
}

/// Opens the regular file at `path`, following symbolic links, and reads it to its end in small steps.
///
/// # Errors
/// Missing, unreadable, not a regular file (a FIFO is never waited for), or changed while it was read (`ESTALE`).
pub fn digest(path: &Path) -> io::Result<(Version, [u8; 32])> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    digest_open(&file)
}

/// As [`digest`], of a file that was opened before, from its position on.
///
/// # Errors
/// As [`digest`].
pub fn digest_open(file: &File) -> io::Result<(Version, [u8; 32])> {
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let version = Version::from_facts(&facts);
    // What is appended meanwhile is not waited for: the version tells.
    let mut rest = file.take(version.size);
    let (mut state, mut buffer) = (Sha256::new(), vec![0; STEP]);
    loop {
        match rest.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => state.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let after = Version::from_facts(&file.metadata()?);
    if after == version { Ok((version, state.finalize().into())) } else { Err(Errno::ESTALE.into()) }
}

/// The digest of bytes at hand.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::super::{Access, overwrite, write_new};
    use super::*;

    fn hex(bytes: [u8; 32]) -> String {
        bytes.map(|byte| format!("{byte:02x}")).concat()
    }

    /// FIPS 180-2, appendix B.1 and B.3.
    #[test]
    fn known_texts_have_their_digests() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(digest_of(b"abc")), abc);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new(&path, &vec![b'a'; 1_000_000], Access::private()).unwrap();
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(hex(digest(&path).unwrap().1), million);
    }

    #[test]
    fn every_state_of_a_file_is_a_version_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_new(&path, b"one", Access::private()).unwrap();
        let (version, before) = digest(&path).unwrap();
        assert_eq!(Version::of(&path).unwrap(), version);
        assert_eq!(version.identity(), Identity::of(&path).unwrap());
        overwrite(&path, b"three").unwrap();
        let (now, after) = digest(&path).unwrap();
        assert!(now != version && after != before && now.identity() == version.identity());
    }

    #[test]
    fn what_is_no_regular_file_is_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert!(digest(&fifo).is_err() && digest(dir.path()).is_err());
        assert_eq!(digest(&dir.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
