//! A directory in which one user keeps small secrets between processes, each of them for whoever takes it first.
//!
//! Everything goes through the directory's descriptor, and what is opened is judged on its own: nobody else can put
//! something else in its place, and what belongs to somebody else, or could have been read by somebody else, is of no
//! use. Nothing is synced: what a crash takes away can be made again.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};

use super::write::TEMPORARY;
use super::{FileError, directory_of, read_open};
use crate::sys::random;

/// Its time of writing says when the directory was swept last.
const SWEPT: &str = ".swept";

/// A directory of mode 0700 that belongs to this process's user.
#[derive(Debug)]
pub struct PrivateDir {
    dir: OwnedFd,
    path: PathBuf,
}

impl PrivateDir {
    /// Opens a directory, or makes it where its parent is there.
    ///
    /// # Errors
    /// The parent is writable by others than root and this user; or what has the name is no directory, a symbolic
    /// link, somebody else's, or open to others.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let fail = |action| move |errno: Errno| FileError::new(path, action, errno.into());
        let foreign = |why: &str| FileError::new(path, "use", io::Error::new(io::ErrorKind::PermissionDenied, why));
        let (above, name) = (directory_of(path), path.file_name().unwrap_or_default());
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let above = open(above, flags | OFlag::O_PATH, Mode::empty()).map_err(fail("open the directory of"))?;
        let facts = fstat(&above).map_err(fail("examine the directory of"))?;
        let ours = Uid::effective().as_raw();
        if ![0, ours].contains(&facts.st_uid) || facts.st_mode & 0o022 != 0 {
            return Err(foreign("others may write to the directory that it is in"));
        }
        match mkdirat(&above, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(fail("create directory")(errno)),
        }
        let dir = openat(&above, name, flags | OFlag::O_NOFOLLOW, Mode::empty()).map_err(fail("open"))?;
        let facts = fstat(&dir).map_err(fail("examine"))?;
        if facts.st_uid != ours || facts.st_mode & 0o077 != 0 {
            return Err(foreign("it belongs to another user, or others may enter it"));
        }
        Ok(Self { dir, path: path.to_owned() })
    }

    /// Takes out what is kept under a name: of several that ask at the same time, one gets it. What is not a file of
    /// this user's, for this user alone, is removed and counts as nothing.
    ///
    /// # Errors
    /// The file system; or the file is larger than `limit`.
    pub fn take(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, FileError> {
        let path = self.path.join(name);
        let fail = |action| move |errno: Errno| FileError::new(&self.path.join(name), action, errno.into());
        let own = temporary().map_err(|source| FileError::new(&path, "draw a name for", source))?;
        match renameat(&self.dir, name, &self.dir, own.as_str()) {
            Err(Errno::ENOENT) => return Ok(None),
            moved => moved.map_err(fail("take"))?,
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let opened = openat(&self.dir, own.as_str(), flags, Mode::empty());
        let gone = self.remove(&own);
        let file = match opened {
            // A symbolic link.
            Err(Errno::ELOOP) => return Ok(None),
            opened => opened.map_err(fail("open"))?,
        };
        gone.map_err(fail("remove"))?;
        let facts = fstat(&file).map_err(fail("examine"))?;
        if is_private(&facts) { read_open(&File::from(file), &path, limit).map(Some) } else { Ok(None) }
    }

    /// Keeps something under a name, in place of what was there.
    ///
    /// # Errors
    /// The file system; what was there is then still there.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let fail = |source: io::Error| FileError::new(&self.path.join(name), "write", source);
        let own = temporary().map_err(fail)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, own.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let written = file.map_err(io::Error::from).and_then(|file| File::from(file).write_all(bytes));
        let moved = written.and_then(|()| Ok(renameat(&self.dir, own.as_str(), &self.dir, name)?));
        moved.map_err(|source| {
            // The reason is on its way; what is left behind is swept one day.
            let _ = self.remove(&own);
            fail(source)
        })
    }

    /// Removes what was written longer than `age` before `now`; at most once in `every`, since that reads the whole
    /// directory. A clock that is put back counts like one that goes on. What cannot be removed is left to the next time.
    pub fn sweep(&self, now: SystemTime, every: Duration, age: Duration) {
        let older = |facts: &FileStat, than: Duration| {
            let seconds = u64::try_from(facts.st_mtime).unwrap_or(0);
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            now.duration_since(written).unwrap_or_else(|ahead| ahead.duration()) > than
        };
        if self.facts(OsStr::new(SWEPT)).is_some_and(|facts| !older(&facts, every)) || self.put(SWEPT, b"x").is_err() {
            return;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut entries) = Dir::openat(&self.dir, ".", flags, Mode::empty()) else { return };
        let names: Vec<_> = entries.iter().filter_map(Result::ok).map(|entry| entry.file_name().to_owned()).collect();
        for name in
            names.iter().map(|name| name_of(name)).filter(|name| ![".", "..", SWEPT].map(OsStr::new).contains(name))
        {
            if self.facts(name).is_some_and(|facts| older(&facts, age)) {
                let _ = unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir);
            }
        }
    }

    fn facts(&self, name: &OsStr) -> Option<FileStat> {
        fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()
    }

    fn remove(&self, name: &str) -> Result<(), Errno> {
        unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir)
    }
}

fn is_private(facts: &FileStat) -> bool {
    let regular = facts.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    let open_to_others = facts.st_mode & 0o077 != 0;
    regular && facts.st_uid == Uid::effective().as_raw() && !open_to_others
}

fn name_of(name: &CStr) -> &OsStr {
    use std::os::unix::ffi::OsStrExt as _;
    OsStr::from_bytes(name.to_bytes())
}

fn temporary() -> io::Result<String> {
    Ok(format!("{TEMPORARY}{:016x}", u64::from_be_bytes(random::bytes::<8>()?)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

    use super::*;

    fn private() -> (tempfile::TempDir, PathBuf, PrivateDir) {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("kept");
        let dir = PrivateDir::open(&path).unwrap();
        (above, path, dir)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_put_is_taken_once_and_only_its_user_can_read_it() {
        let (_above, path, dir) = private();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(dir.take("a", 10).unwrap(), None);
        dir.put("a", b"first").unwrap();
        dir.put("a", b"second").unwrap();
        assert_eq!(fs::metadata(path.join("a")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(PrivateDir::open(&path).unwrap().take("a", 10).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(dir.take("a", 10).unwrap(), None);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn of_many_who_take_at_the_same_time_one_gets_it() {
        let (_above, path, dir) = private();
        for round in 0..100_u32 {
            dir.put("a", &round.to_be_bytes()).unwrap();
            let got: Vec<_> = std::thread::scope(|scope| {
                let take = || PrivateDir::open(&path).unwrap().take("a", 4).unwrap();
                let takers: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
                takers.into_iter().filter_map(|taker| taker.join().unwrap()).collect()
            });
            assert_eq!(got, [round.to_be_bytes()]);
        }
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn what_is_larger_than_allowed_is_gone_and_an_error() {
        let (_above, path, dir) = private();
        dir.put("a", b"12345").unwrap();
        assert!(dir.take("a", 4).is_err());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_could_have_read_or_written_counts_as_nothing() {
        let (_above, path, dir) = private();
        for wide in [0o640, 0o604, 0o620] {
            dir.put("a", b"x").unwrap();
            mode(&path.join("a"), wide);
            assert_eq!(dir.take("a", 10).unwrap(), None, "{wide:o}");
        }
        dir.put("a", b"x").unwrap();
        chown(path.join("a"), Some(12345), None).unwrap();
        assert_eq!(dir.take("a", 10).unwrap(), None);
        let target = path.join("target");
        dir.put("target", b"x").unwrap();
        symlink(&target, path.join("a")).unwrap();
        assert_eq!(dir.take("a", 10).unwrap(), None);
        assert_eq!(fs::read(&target).unwrap(), b"x", "the link alone is removed");
    }

    #[test]
    fn a_directory_that_is_not_this_users_alone_is_not_used() {
        let (above, path, _) = private();
        mode(&path, 0o750);
        assert!(PrivateDir::open(&path).is_err());
        mode(&path, 0o700);
        chown(&path, Some(12345), None).unwrap();
        assert!(PrivateDir::open(&path).is_err());
        chown(&path, Some(0), None).unwrap();
        symlink(&path, above.path().join("link")).unwrap();
        assert!(PrivateDir::open(&above.path().join("link")).is_err());
        PrivateDir::open(&path).unwrap();
        mode(above.path(), 0o777);
        assert!(PrivateDir::open(&path).is_err(), "others could exchange it");
        mode(above.path(), 0o700);
        chown(above.path(), Some(12345), None).unwrap();
        assert!(PrivateDir::open(&path).is_err(), "its owner could exchange it");
        assert!(PrivateDir::open(&above.path().join("none/kept")).unwrap_err().is_not_found());
    }

    #[test]
    fn the_old_is_swept_now_and_then_and_the_rest_stays() {
        let (_above, path, dir) = private();
        dir.put("a", b"x").unwrap();
        let (hour, now) = (Duration::from_hours(1), SystemTime::now());
        dir.sweep(now, hour, hour);
        assert!(path.join("a").exists());
        dir.sweep(now + hour / 2, hour, Duration::from_secs(1));
        assert!(path.join("a").exists(), "it was swept half an hour ago");
        dir.sweep(now + 2 * hour, hour, hour);
        assert!(!path.join("a").exists());
    }

    #[test]
    fn a_clock_that_is_put_back_never_keeps_what_was_written_from_being_swept() {
        let (_above, path, dir) = private();
        dir.put("a", b"x").unwrap();
        let (hour, now) = (Duration::from_hours(1), SystemTime::now());
        dir.sweep(now, hour, hour);
        dir.sweep(now - 2 * hour, hour, hour);
        assert!(!path.join("a").exists());
    }
}
