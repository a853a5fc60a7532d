//! What a directory or a file is, beyond its bytes.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{AccessFlags, Gid, Uid, access, faccessat, fchownat};

use super::FileError;
use super::write::{TEMPORARY, sync_directory};

/// No write takes longer.
const LEFT_BEHIND: Duration = Duration::from_hours(1);

/// Makes sure that a directory exists; a new one gets exactly `mode`, an existing one keeps its own. Missing parents
/// are made with the process's umask.
///
/// # Errors
/// It cannot be made, or something else has its name.
pub fn create_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    if path.is_dir() {
        return Ok(());
    }
    let fail = |source| FileError::new(path, "create directory", source);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(fail)?;
    }
    match fs::create_dir(path) {
        Ok(()) => {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(fail)?;
            sync_directory(path)
        }
        // Somebody else was faster, which is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(fail(error)),
    }
}

/// Whether [`create_dir`] would leave a directory that this process can put files into. Nothing is made.
///
/// # Errors
/// The first directory on the way, from below, that is there and is none, or that this process may not write to.
pub fn could_fill_dir(path: &Path) -> Result<(), FileError> {
    let there = path.ancestors().find(|place| place.symlink_metadata().is_ok()).unwrap_or(path);
    let reason = match there.metadata() {
        Err(error) => error,
        Ok(facts) if !facts.is_dir() => Errno::ENOTDIR.into(),
        Ok(_) => match may_write(there) {
            Ok(()) => return Ok(()),
            // No rights, or a file system that is read-only.
            Err(errno) => errno.into(),
        },
    };
    let what = if there == path { "write to" } else { "make a directory in" };
    Err(FileError::new(there, what, reason))
}

/// How long ago a file was written; `None` where it does not exist. A time in the future counts as now.
///
/// # Errors
/// It exists and cannot be asked.
pub fn age(path: &Path) -> Result<Option<Duration>, FileError> {
    match fs::metadata(path).and_then(|facts| facts.modified()) {
        Ok(written) => Ok(Some(SystemTime::now().duration_since(written).unwrap_or_default())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FileError::new(path, "examine", source)),
    }
}

/// When a file was written last, and how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its modification time.
    pub modified: SystemTime,
    /// Its length in bytes.
    pub size: u64,
}

/// The facts of a file, or of the link that it is; `None` where there is none.
///
/// # Errors
/// It exists and cannot be asked.
pub fn facts(path: &Path) -> Result<Option<Facts>, FileError> {
    let fail = |source| FileError::new(path, "examine", source);
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(Facts { modified: found.modified().map_err(fail)?, size: found.len() })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(fail(source)),
    }
}

/// Removes what writes that were killed have left behind in `dir`: temporary files older than an hour, which may hold a
/// key. A directory or a file that cannot be read or removed is left to the next time.
pub fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.filter_map(Result::ok) {
        let unfinished = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes());
        if unfinished && age(&entry.path()).is_ok_and(|age| age.is_some_and(|age| age > LEFT_BEHIND)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether this process may execute the regular file at `path` (access(2), by real ids).
#[must_use]
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// Whether this process may make files in the directory at `path`, as the process that it is now (eaccess(3)).
#[must_use]
pub fn is_writable_dir(path: &Path) -> bool {
    path.is_dir() && may_write(path).is_ok()
}

fn may_write(directory: &Path) -> Result<(), Errno> {
    faccessat(AT_FDCWD, directory, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)
}

/// Gives a file or directory to another user and group, which only root may. A symbolic link is not followed.
///
/// # Errors
/// It does not exist, or we are not root.
pub fn give(path: &Path, owner: Uid, group: Gid) -> Result<(), FileError> {
    let given = fchownat(AT_FDCWD, path, Some(owner), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW);
    given.map_err(|errno| FileError::new(path, "change the owner of", errno.into()))
}

/// Makes a node for a character device. The mode is subject to the umask.
///
/// # Errors
/// No `CAP_MKNOD`.
pub fn make_device(path: &Path, major: u64, minor: u64, mode: u32) -> io::Result<()> {
    Ok(mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(mode), makedev(major, minor))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing can be made below `/proc/sys` whatever rights one has; the kernel says so in its own words.
    #[test]
    fn a_directory_that_takes_nothing_is_told_with_the_kernel_s_own_reason() {
        let own = may_write(Path::new("/proc/self/task")).map_err(io::Error::from);
        let told = could_fill_dir(Path::new("/proc/self/task")).map_err(|error| error.kind());
        assert_eq!(told, own.map_err(|error| error.kind()));
        assert!(could_fill_dir(&std::env::temp_dir().join("none/yet")).is_ok());
    }

    #[test]
    fn a_new_directory_has_its_mode_and_an_old_one_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        create_dir(&path, 0o2770).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o2770);
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        create_dir(&path, 0o2770).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn what_killed_writes_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for (name, hours) in [(".tmp-old", 2), (".tmp-young", 0), ("agent.key", 2)] {
            let file = fs::File::create_new(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
        }
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".tmp-young", "agent.key"]);
        sweep(&dir.path().join("nowhere"));
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::File::create_new(&path).unwrap();
        assert!(create_dir(&path, 0o700).unwrap_err().to_string().contains("file"));
        assert!(!is_executable(&path));
        assert!(age(&path).unwrap().is_some() && age(&dir.path().join("none")).unwrap().is_none());
    }
}
