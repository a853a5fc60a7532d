//! Where a path leads, if nobody but root has a say in that.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

/// Most symbolic links on the way, as in the kernel (`path_resolution(7)`).
const LINKS: usize = 40;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Led {
    /// The path without symbolic links and dots.
    pub place: PathBuf,
    /// What else decides where it leads, beside the directories above the place: the links on the way, and the directories that
    /// were left again by `..`; each without links above it.
    pub passed: Vec<PathBuf>,
}

impl Led {
    /// By no link.
    #[must_use]
    pub const fn straight(place: PathBuf) -> Self {
        Self { place, passed: Vec::new() }
    }
}

/// Where a path leads, if root made every link on the way. Whose the directories are does not
/// matter: who owns one may exchange what is in it, but with a link of root's only for one that is there already.
///
/// Names are looked at one after another, so whoever uses the result follows no link any more (`RESOLVE_NO_SYMLINKS`).
///
/// # Errors
/// There is no such file, a link is somebody else's, or the path is relative.
pub fn resolve_by_links_of_root(path: &Path) -> io::Result<Led> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    if let Some(answer) = without_links(path) {
        return answer.map(Led::straight);
    }
    match follow(path)? {
        (led, true) => Ok(led),
        (led, false) if led.passed.is_empty() => Err(Errno::ENOENT.into()),
        (led, false) => {
            let text = format!("{} leads to {}, where nothing is", path.display(), led.place.display());
            Err(io::Error::new(io::ErrorKind::NotFound, text))
        }
    }
}

/// Whether that says of a path that it is not there and that no link is on the way, so that what would be made would be there.
#[must_use]
pub fn is_plainly_missing(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOENT as i32)
}

/// Where it leads, or would lead if what is missing on the way were made: links that lead to nothing are followed too.
///
/// # Errors
/// As [`resolve_by_links_of_root`], but for a file that is not there.
pub fn led_by_links_of_root(path: &Path) -> io::Result<Led> {
    follow(path).map(|(led, _)| led)
}

/// Where it leads, and whether that is there.
fn follow(path: &Path) -> io::Result<(Led, bool)> {
    let (mut found, mut rest, mut links) = (PathBuf::new(), VecDeque::new(), 0);
    let mut passed = Vec::new();
    prepend(&mut found, &mut rest, path);
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            passed.extend(found.parent().map(|_| found.clone()));
            found.pop();
            continue;
        }
        let place = found.join(name);
        let facts = match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Led { place: made(place, rest), passed }, false));
            }
            facts => facts?,
        };
        if !facts.is_symlink() {
            found = place;
            continue;
        }
        if facts.uid() != 0 {
            let text = format!("the symbolic link {} belongs to uid {} (chown -h root)", place.display(), facts.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        links += 1;
        if links > LINKS {
            return Err(Errno::ELOOP.into());
        }
        prepend(&mut found, &mut rest, &fs::read_link(&place)?);
        passed.push(place);
    }
    Ok((Led { place: found, passed }, true))
}

/// What is missing, with what is to be in it.
fn made(missing: PathBuf, rest: VecDeque<OsString>) -> PathBuf {
    let mut made = missing;
    for name in rest {
        if name == ".." {
            made.pop();
        } else {
            made.push(name);
        }
    }
    made
}

/// The answer for a path without dots that no link is on, in one call of the kernel's (`RESOLVE_NO_SYMLINKS`, openat2(2)),
/// which walks as [`resolve_by_links_of_root`] does; nothing for any other, or from a kernel without the call.
fn without_links(path: &Path) -> Option<io::Result<PathBuf>> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Ok(_) => {
            let plain: PathBuf = path.components().collect();
            let dots = plain.components().any(|component| component == Component::ParentDir);
            (!dots).then_some(Ok(plain))
        }
        Err(Errno::ENOENT) => Some(Err(Errno::ENOENT.into())),
        Err(_) => None,
    }
}

/// Puts the components of `path` in front of what is left to walk; an absolute one starts again at `/`.
fn prepend(found: &mut PathBuf, rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front(OsString::from("..")),
            Component::RootDir => *found = PathBuf::from("/"),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn links_of_root_lead_on_and_those_of_others_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/b")).unwrap();
        symlink(base.join("a"), base.join("whole")).unwrap();
        symlink("../whole/./b", base.join("a/part")).unwrap();
        symlink("circle", base.join("circle")).unwrap();
        symlink("none/x", base.join("nothing")).unwrap();
        let led = |path: &Path| resolve_by_links_of_root(path).map(|led| led.place);
        let resolve = |name: &str| led(&base.join(name));
        assert_eq!(resolve("a/part/.").unwrap(), base.join("a/b"));
        assert_eq!(resolve("whole/../whole/b").unwrap(), base.join("a/b"));
        assert_eq!(led(Path::new("/..")).unwrap(), Path::new("/"));
        let passed = |name: &str| resolve_by_links_of_root(&base.join(name)).unwrap().passed;
        assert_eq!(passed("a/part"), [base.join("a/part"), base.join("a"), base.join("whole")]);
        assert_eq!(passed("a/b"), Vec::<PathBuf>::new());
        assert_eq!(resolve("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(is_plainly_missing(&resolve("none/b").unwrap_err()));
        let made = |name: &str| led_by_links_of_root(&base.join(name)).unwrap().place;
        assert_eq!((made("none/b"), made("whole/b")), (base.join("none/b"), base.join("a/b")));
        for (name, to) in [("whole/x/y", "a/x/y"), ("nothing", "none/x"), ("nothing/../y", "none/y")] {
            assert_eq!(made(name), base.join(to), "{name}");
            let error = resolve(name).unwrap_err();
            assert!(error.kind() == io::ErrorKind::NotFound && !is_plainly_missing(&error), "{name}");
        }
        assert_eq!(resolve("circle").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        lchown(base.join("whole"), Some(65_534), None).unwrap();
        for name in ["whole", "whole/b", "a/part"] {
            let error = resolve(name).unwrap_err().to_string();
            assert!(error.contains("whole belongs to uid 65534"), "{name}: {error}");
        }
        assert_eq!(resolve("a/b").unwrap(), base.join("a/b"));
        assert!(resolve_by_links_of_root(Path::new("a")).is_err());
    }
}
