//! Files without a name, for what is too large for memory and nobody's after this process.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::FileError;
use super::write::{TEMPORARY, create_exclusively};
use crate::sys::random;

/// An empty file in `dir` that has no name and goes with its last descriptor, however the process ends. Readable and
/// writable through that descriptor alone.
///
/// # Errors
/// The directory is missing, or no file can be made in it.
pub fn nameless(dir: &Path) -> Result<File, FileError> {
    let fail = |source| FileError::new(dir, "make a file without a name in", source);
    let flags = libc::O_TMPFILE | libc::O_CLOEXEC;
    match OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(flags).open(dir) {
        // File systems that know no such files, and kernels that know no such flag (open(2)).
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
            unnamed(dir).map_err(fail)
        }
        made => made.map_err(fail),
    }
}

/// The same by a name that is gone at once. What is killed in between leaves an empty file, which is swept
/// ([`super::sweep`]).
fn unnamed(dir: &Path) -> io::Result<File> {
    let name = format!("{TEMPORARY}{:016x}", u64::from_be_bytes(random::bytes::<8>()?));
    let path = dir.join(name);
    let file = create_exclusively(&path, 0o600)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use super::*;

    #[test]
    fn a_file_without_a_name_holds_what_is_written_and_nobody_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        for file in [nameless(dir.path()).unwrap(), unnamed(dir.path()).unwrap()] {
            file.write_all_at(b"kept", 1 << 20).unwrap();
            let mut read = [0; 4];
            file.read_exact_at(&mut read, 1 << 20).unwrap();
            assert_eq!((&read, file.metadata().unwrap().nlink()), (b"kept", 0));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        assert!(nameless(&dir.path().join("missing")).unwrap_err().is_not_found());
    }
}
