//! Room for what has to be written later, whatever becomes of the disk meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;

use super::FileError;

/// Has the file system set aside the first `bytes` bytes of an empty file, which read as zeros until they are written
/// (fallocate(2)). Where it knows no such thing, the zeros are written.
///
/// # Errors
/// It has no room for them.
pub fn reserve(file: impl AsFd, path: &Path, bytes: u32) -> Result<(), FileError> {
    let fail = |source| FileError::new(path, "reserve room in", source);
    loop {
        return match fallocate(&file, FallocateFlags::empty(), 0, bytes.into()) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => fill(file, bytes).map_err(fail),
            reserved => reserved.map_err(|errno| fail(errno.into())),
        };
    }
}

fn fill(file: impl AsFd, bytes: u32) -> io::Result<()> {
    let file = File::from(file.as_fd().try_clone_to_owned()?);
    // The place at which the next one writes stays where it is.
    file.write_all_at(&vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)], 0)
}

/// Whether a file ends where its disk did, with the last block that there was: the kernel tells nobody but who writes. One that
/// happens to end with a block, as one of thousands does, counts as well while there is no room. What is neither a file nor holds
/// anything never does.
#[must_use]
pub fn ends_with_its_disk(file: &File) -> bool {
    let found = file.metadata().ok().filter(|found| found.is_file() && found.len() > 0);
    found.is_some_and(|found| {
        // What is kept for root alone (statvfs(3)) is not for everybody.
        fstatvfs(file).is_ok_and(|disk| {
            let block = disk.fragment_size();
            block > 0 && found.len().is_multiple_of(block) && disk.blocks_available() == 0
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_reserved_reads_as_zeros_and_is_written_from_its_beginning() {
        for by in [|file: &File| reserve(file, Path::new("x"), 9000).unwrap(), |file: &File| fill(file, 9000).unwrap()]
        {
            let mut file = tempfile::tempfile().unwrap();
            by(&file);
            file.write_all(b"line\n").unwrap();
            let mut bytes = vec![1; 9000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes[..7], b"line\n\0\0");
            assert!(bytes[5..].iter().all(|byte| *byte == 0) && file.metadata().unwrap().len() == 9000);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
        let error = reserve(File::open("/dev/null").unwrap(), Path::new("/the/file"), 1).unwrap_err();
        assert!(error.to_string().contains("reserve room in /the/file"), "{error}");
    }
}
