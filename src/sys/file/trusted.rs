//! Opening a file that only root could have put there.
//!
//! Every component of the path, from `/` to the file, is opened in turn (`openat`, `O_PATH | O_NOFOLLOW`) and judged
//! on the descriptor itself: owned by root, not writable by group or others. A sticky directory such as `/tmp` does
//! not pass. Symbolic links are resolved here, one at a time, so that the directories they lead through are judged
//! too. A link itself needs no judgement: its content cannot be changed, and its name is in a judged directory.
//! With POSIX ACLs the group bits are the mask (acl(5)), so that a writer by ACL shows as a writable group.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Uid;

use super::{FileError, Identity, Resolved};

/// Most symbolic links on the way, as in the kernel (`path_resolution(7)`).
const LINKS: usize = 40;

/// Why a file was not opened as a trusted one.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be opened at all.
    #[error(transparent)]
    File(#[from] FileError),
    /// Somebody other than root could have written it or put it there.
    #[error("{} cannot be trusted: {} {why}", path.display(), place.display())]
    Untrusted {
        /// The file that was asked for.
        path: PathBuf,
        /// The component that fails.
        place: PathBuf,
        /// What is wrong with it and how to mend it.
        why: String,
    },
}

impl TrustError {
    /// Whether the file does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::File(error) if error.is_not_found())
    }
}

/// Opens a regular file for reading if it and every directory above it belong to root and are writable by nobody
/// else. `path` is absolute.
///
/// # Errors
/// Missing or unreadable, not a regular file, a relative path, or the first component that fails the test.
pub fn open_trusted(path: &Path) -> Result<File, TrustError> {
    let walk = Walk::new(path, &judge);
    match walk.end(OFlag::O_RDONLY)? {
        End::File(file, _) => Ok(File::from(file)),
        End::Directory => Err(no_file(path, io::ErrorKind::IsADirectory)),
    }
}

/// The regular file that a path means, if it and every directory on the way pass as for [`open_trusted`]. It need not
/// be readable for the caller, whose `path` is absolute.
///
/// # Errors
/// As [`open_trusted`].
pub fn resolve_trusted(path: &Path) -> Result<Resolved, TrustError> {
    resolve(path, &judge)
}

/// The same, where one account more may own what is on the way, and it alone beside root may write to it.
///
/// # Errors
/// As [`open_trusted`].
pub fn resolve_kept_by(path: &Path, own: Uid) -> Result<Resolved, TrustError> {
    resolve(path, &|facts| judge_own(facts, own))
}

fn resolve(path: &Path, judge: &dyn Fn(&FileStat) -> Option<String>) -> Result<Resolved, TrustError> {
    let walk = Walk::new(path, judge);
    match walk.end(OFlag::O_PATH)? {
        End::File(file, place) => {
            let facts = fstat(&file).map_err(|errno| FileError::new(path, "examine", errno.into()))?;
            Ok(Resolved { path: place, identity: Identity::from_stat(&facts) })
        }
        End::Directory => Err(no_file(path, io::ErrorKind::IsADirectory)),
    }
}

/// Makes sure that a directory and every one above it pass as for [`open_trusted`].
///
/// # Errors
/// As [`open_trusted`], and where it is no directory.
pub fn check_trusted_directory(path: &Path) -> Result<(), TrustError> {
    match Walk::new(path, &judge).end(OFlag::O_PATH)? {
        End::Directory => Ok(()),
        End::File(..) => Err(no_file(path, io::ErrorKind::NotADirectory)),
    }
}

/// Makes sure that a regular file is in the hands of root and of this process's own account alone, as every directory
/// above it: for what runs with the rights of that account.
///
/// # Errors
/// As [`open_trusted`].
pub fn check_own(path: &Path) -> Result<(), TrustError> {
    let own = Uid::effective();
    match Walk::new(path, &|facts| judge_own(facts, own)).end(OFlag::O_PATH)? {
        End::File(..) => Ok(()),
        End::Directory => Err(no_file(path, io::ErrorKind::IsADirectory)),
    }
}

fn no_file(path: &Path, kind: io::ErrorKind) -> TrustError {
    FileError::new(path, "open", kind.into()).into()
}

/// What a walk came to, with its place.
enum End {
    File(OwnedFd, PathBuf),
    Directory,
}

/// What is wrong with a component; nothing if it passes.
fn judge(facts: &FileStat) -> Option<String> {
    if facts.st_uid != 0 {
        return Some(format!("belongs to uid {} (chown root)", facts.st_uid));
    }
    if facts.st_mode & 0o022 != 0 {
        return Some(format!("has mode {:04o}, writable by others than root (chmod go-w)", facts.st_mode & 0o7777));
    }
    None
}

/// As [`judge`], where the files of one account count as root's.
fn judge_own(facts: &FileStat, own: Uid) -> Option<String> {
    let mut facts = *facts;
    if facts.st_uid == own.as_raw() {
        facts.st_uid = 0;
    }
    judge(&facts)
}

/// A resolution in progress. `stack` holds the judged directories from `/` down, so that `..` goes back to one that
/// was judged.
struct Walk<'a> {
    path: &'a Path,
    judge: &'a dyn Fn(&FileStat) -> Option<String>,
    stack: Vec<(OwnedFd, PathBuf)>,
    rest: VecDeque<OsString>,
    links: usize,
}

impl<'a> Walk<'a> {
    const fn new(path: &'a Path, judge: &'a dyn Fn(&FileStat) -> Option<String>) -> Self {
        Self { path, judge, stack: Vec::new(), rest: VecDeque::new(), links: 0 }
    }

    /// Walks to the end and opens what is there: a regular file with `access`.
    fn end(mut self, access: OFlag) -> Result<End, TrustError> {
        if !self.path.is_absolute() {
            return Err(self.fail("open", io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute")));
        }
        self.prepend(self.path)?;
        while let Some(name) = self.rest.pop_front() {
            if let Some(place) = self.step(&name)? {
                return Ok(End::File(self.open(&name, &place, access)?, place));
            }
        }
        Ok(End::Directory)
    }

    /// Puts the components of `path` in front of what is left to walk; an absolute one starts again at `/`.
    fn prepend(&mut self, path: &Path) -> Result<(), TrustError> {
        if path.is_absolute() {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let root = nix::fcntl::open("/", flags, Mode::empty()).map_err(|errno| self.fail("open", errno.into()))?;
            self.check(&root, Path::new("/"))?;
            self.stack = vec![(root, PathBuf::from("/"))];
        }
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.rest.push_front(name.to_owned()),
                Component::ParentDir => self.rest.push_front(OsString::from("..")),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(())
    }

    /// Walks one component; the place of the file when it was the last.
    fn step(&mut self, name: &OsStr) -> Result<Option<PathBuf>, TrustError> {
        if name == ".." {
            if self.stack.len() > 1 {
                self.stack.pop();
            }
            return Ok(None);
        }
        let Some((directory, above)) = self.stack.last() else {
            return Err(self.fail("open", io::Error::from(io::ErrorKind::NotFound)));
        };
        let place = above.join(name);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(directory, name, flags, Mode::empty()).map_err(|errno| self.fail("open", errno.into()))?;
        let facts = fstat(&opened).map_err(|errno| self.fail("examine", errno.into()))?;
        match SFlag::from_bits_truncate(facts.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFLNK => self.follow(&opened).map(|()| None),
            SFlag::S_IFDIR => {
                self.check(&opened, &place)?;
                self.stack.push((opened, place));
                Ok(None)
            }
            _ if !self.rest.is_empty() => Err(self.fail("open", io::Error::from(io::ErrorKind::NotADirectory))),
            SFlag::S_IFREG => Ok(Some(place)),
            _ => Err(self.fail("open", io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))),
        }
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<(), TrustError> {
        self.links += 1;
        if self.links > LINKS {
            return Err(self.fail("open", nix::errno::Errno::ELOOP.into()));
        }
        let target = readlinkat(link, "").map_err(|errno| self.fail("resolve", errno.into()))?;
        self.prepend(Path::new(&target))
    }

    /// Opens the file. Only root can change what this name means in a judged directory, and the judgement is made on
    /// the descriptor that is handed out.
    fn open(&self, name: &OsStr, place: &Path, access: OFlag) -> Result<OwnedFd, TrustError> {
        let Some((directory, _)) = self.stack.last() else {
            return Err(no_file(self.path, io::ErrorKind::NotFound));
        };
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let opened = openat(directory, name, flags, Mode::empty()).map_err(|errno| self.fail("open", errno.into()))?;
        self.check(&opened, place)?;
        Ok(opened)
    }

    fn check(&self, opened: impl AsFd, place: &Path) -> Result<(), TrustError> {
        let facts = fstat(opened).map_err(|errno| self.fail("examine", errno.into()))?;
        match (self.judge)(&facts) {
            None => Ok(()),
            Some(why) => Err(TrustError::Untrusted { path: self.path.to_owned(), place: place.to_owned(), why }),
        }
    }

    fn fail(&self, action: &'static str, source: io::Error) -> TrustError {
        FileError::new(self.path, action, source).into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sys::file::{Access, write_new};

    /// As `judge`, but for any owner and with `/tmp` let through, so that it can be tried in a temporary directory.
    fn ownerless(facts: &FileStat) -> Option<String> {
        (facts.st_mode & 0o1022 != 0 && facts.st_mode & 0o1000 == 0).then(|| "is writable".to_owned())
    }

    fn content(path: &Path) -> Result<String, TrustError> {
        let mut text = String::new();
        match Walk::new(path, &ownerless).end(OFlag::O_RDONLY)? {
            End::File(file, _) => File::from(file).read_to_string(&mut text).unwrap(),
            End::Directory => return Err(no_file(path, io::ErrorKind::IsADirectory)),
        };
        Ok(text)
    }

    #[test]
    fn a_file_of_root_is_opened() {
        open_trusted(Path::new("/etc/passwd")).unwrap();
    }

    #[test]
    fn a_trusted_path_is_resolved_to_the_file_that_was_judged() {
        let found = resolve_trusted(Path::new("/bin/../bin/sh")).unwrap();
        assert_eq!(found, crate::sys::file::resolve(Path::new("/bin/sh")).unwrap());
        assert!(resolve_trusted(Path::new("/bin")).is_err() && resolve_trusted(Path::new("bin/sh")).is_err());
        assert!(resolve_trusted(Path::new("/no/such")).unwrap_err().is_not_found());
        check_trusted_directory(Path::new("/usr/../etc")).unwrap();
        assert!(check_trusted_directory(Path::new("/etc/passwd")).is_err());
        assert!(matches!(check_trusted_directory(Path::new("/tmp")), Err(TrustError::Untrusted { .. })));
    }

    #[test]
    fn a_file_below_a_directory_that_others_may_write_is_refused() {
        let dir = tempfile::tempdir_in("/tmp").unwrap();
        let path = dir.path().join("file");
        write_new(&path, b"x", Access::public()).unwrap();
        let error = open_trusted(&path).unwrap_err();
        assert!(matches!(&error, TrustError::Untrusted { place, .. } if place == Path::new("/tmp")), "{error}");
    }

    #[test]
    fn owner_and_write_bits_decide() {
        let passes = |uid, mode| {
            let mut facts = fstat(File::open("/").unwrap()).unwrap();
            (facts.st_uid, facts.st_mode) = (uid, mode);
            judge(&facts).is_none()
        };
        assert!(passes(0, 0o100_644) && passes(0, 0o040_755) && passes(0, 0o100_600));
        assert!(!passes(1, 0o100_644) && !passes(0, 0o100_664) && !passes(0, 0o100_646) && !passes(0, 0o041_777));
    }

    #[test]
    fn an_account_s_own_files_count_as_roots_and_no_others_do() {
        let passes = |uid, mode| {
            let mut facts = fstat(File::open("/").unwrap()).unwrap();
            (facts.st_uid, facts.st_mode) = (uid, mode);
            judge_own(&facts, Uid::from_raw(7)).is_none()
        };
        assert!(passes(7, 0o100_755) && passes(0, 0o100_755) && !passes(8, 0o100_755));
        assert!(!passes(7, 0o100_775) && !passes(7, 0o100_757) && !passes(0, 0o041_777));
        check_own(Path::new("/bin/sh")).unwrap();
        assert!(check_own(Path::new("/bin")).is_err() && check_own(Path::new("bin/sh")).is_err());
    }

    #[test]
    fn links_and_dots_lead_where_the_kernel_leads() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        write_new(&base.join("a/file"), b"here", Access::public()).unwrap();
        symlink("../file", base.join("a/b/relative")).unwrap();
        symlink(base.join("a/b"), base.join("absolute")).unwrap();
        assert_eq!(content(&base.join("absolute/relative")).unwrap(), "here");
        assert_eq!(content(&base.join("a/b/../../a/./file")).unwrap(), "here");
        assert!(content(&base.join("a/file/x")).is_err());
        assert!(content(&base.join("a/b")).is_err());
        assert!(content(&base.join("a/missing")).unwrap_err().is_not_found());
        assert!(content(Path::new("relative")).is_err());
    }

    #[test]
    fn a_link_through_a_writable_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (open, file) = (dir.path().join("open"), dir.path().join("open/file"));
        std::fs::create_dir(&open).unwrap();
        write_new(&file, b"x", Access::public()).unwrap();
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert!(content(&link).is_ok());
        let mode = |mode| std::fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        mode(0o777);
        assert!(matches!(content(&link), Err(TrustError::Untrusted { place, .. }) if place == open));
    }

    #[test]
    fn a_circle_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        symlink("two", dir.path().join("one")).unwrap();
        symlink("one", dir.path().join("two")).unwrap();
        assert!(content(&dir.path().join("one")).is_err());
    }

    #[test]
    fn a_fifo_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(content(&fifo).is_err());
    }
}
