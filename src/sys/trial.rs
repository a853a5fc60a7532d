//! Whether somebody could do something, tried by a process that becomes somebody and then ends.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{AccessFlags, access};

use super::process::{self, Fork};
use super::user::{self, Gid, Uid};

/// Who tries: ids, and no capability.
#[derive(Clone, Copy, Debug)]
pub struct Somebody<'a> {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: &'a [Gid],
}

/// Status of a trial that could not be made.
const NO_TRIAL: i32 = 255;

/// Whether `somebody` could execute the file, or enter the directory, at `path`: access(2), with every right and list on
/// the way. Nothing is executed.
///
/// **Invariant:** as [`process::fork`], the caller has one thread.
///
/// # Errors
/// This process may not become somebody; or not expected of the kernel.
pub fn can_enter(somebody: Somebody<'_>, path: &Path) -> io::Result<Result<(), io::Error>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let Fork::Parent(child) = process::fork()? else { process::end(attempt(somebody, &path)) };
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(Ok(())),
        WaitStatus::Exited(_, errno) if errno != NO_TRIAL => Ok(Err(io::Error::from_raw_os_error(errno))),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// The error's number; 0 for none.
fn attempt(somebody: Somebody<'_>, path: &CString) -> i32 {
    let Somebody { uid, gid, groups } = somebody;
    // With the capabilities goes what root may do as an ordinary owner of nothing.
    let became = user::set_groups(groups).and_then(|()| user::become_ids(uid, gid));
    if became.and_then(|()| user::clear_capabilities()).is_err() {
        return NO_TRIAL;
    }
    access(path.as_c_str(), AccessFlags::X_OK).err().map_or(0, |errno| errno as i32)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::sys::file;

    #[test]
    fn rights_of_the_file_and_of_every_directory_above_it_count() {
        assert!(user::is_root(), "the tests run as root");
        let nobody = Somebody { uid: Uid::from_raw(65_534), gid: Gid::from_raw(65_534), groups: &[] };
        let root = Somebody { uid: Uid::from_raw(0), gid: Gid::from_raw(0), groups: &[] };
        let group = Somebody { groups: &[Gid::from_raw(7)], ..nobody };
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        file::write_atomic(&script, b"", file::Access::public()).unwrap();
        let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let kind = |who, path: &Path| can_enter(who, path).unwrap().map_err(|error| error.kind());
        mode(dir.path(), 0o755);
        mode(&script, 0o750);
        std::os::unix::fs::chown(&script, None, Some(7)).unwrap();
        let denied = Err(io::ErrorKind::PermissionDenied);
        assert_eq!((kind(nobody, &script), kind(root, &script), kind(group, &script)), (denied, Ok(()), Ok(())));
        mode(&script, 0o644);
        assert_eq!(kind(root, &script), denied);
        mode(&script, 0o755);
        assert_eq!(kind(nobody, &script), Ok(()));
        mode(dir.path(), 0o700);
        assert_eq!(kind(nobody, &script), denied);
        assert_eq!(kind(root, &dir.path().join("none")), Err(io::ErrorKind::NotFound));
    }
}
