//! Whether a file of this process's account is for it and root alone.

use std::path::Path;

use nix::unistd::{Gid, Uid};

use super::owner;
use crate::sys::user::{Account, current};

/// What a file is to be guarded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// That others read or write it. A group that this account is in may read.
    Secret,
    /// That others write it.
    Unchanged,
}

/// What is wrong with a file, as this process's account sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unguarded {
    /// What is the matter.
    pub what: String,
    /// The command that mends it, if this account is whom the file is for. For another it would take the file away.
    pub cure: String,
    /// Whether it is a file of this account's.
    pub own: bool,
}

/// What is wrong with who owns the file at `path` and who may do what with it, and how to mend it. A file that does not
/// exist, or that this process may not look at, is in nobody's hands.
#[must_use]
pub fn doubt(path: &Path, guarded: Guarded) -> Option<Unguarded> {
    let (owner, group, mode) = owner(path).ok()?;
    let (own, own_group) = current();
    let groups = Account::by_uid(own).ok().flatten().and_then(|account| account.groups().ok());
    let mut groups = groups.unwrap_or_default();
    groups.extend([own_group, Gid::from_raw(0)]);
    let path = path.display();
    let found = |what, cure| Some(Unguarded { what, cure, own: own == owner });
    if !of_root_or(own, owner) {
        return found(format!("{path} belongs to uid {owner}"), format!("chown root {path}"));
    }
    let cure = cure(mode, groups.contains(&group), guarded)?;
    let what = if guarded == Guarded::Secret { "read or write" } else { "write" };
    found(format!("{path} has mode {mode:04o}, so that others may {what} it"), format!("chmod {cure} {path}"))
}

fn of_root_or(own: Uid, owner: Uid) -> bool {
    owner.is_root() || owner == own
}

/// What to take away; nothing where nobody has too much. `ours` says that the group is one of this account's, or root's.
fn cure(mode: u32, ours: bool, guarded: Guarded) -> Option<&'static str> {
    let (forbidden, cure) = match (guarded, ours) {
        (Guarded::Secret, true) => (0o027, "g-w,o="),
        (Guarded::Secret, false) => (0o067, "g=,o="),
        (Guarded::Unchanged, _) => (0o022, "go-w"),
    };
    (mode & forbidden != 0).then_some(cure)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;
    use crate::sys::file::{Access, write_new};

    #[test]
    fn a_secret_is_read_by_its_owner_and_a_group_of_ours_alone() {
        for mode in [0o600, 0o400, 0o640, 0o440] {
            assert_eq!(cure(mode, true, Guarded::Secret), None, "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o602, 0o660, 0o620, 0o601] {
            assert_eq!(cure(mode, true, Guarded::Secret), Some("g-w,o="), "{mode:o}");
        }
        assert_eq!(cure(0o640, false, Guarded::Secret), Some("g=,o="));
        assert_eq!(cure(0o600, false, Guarded::Secret), None);
    }

    #[test]
    fn what_others_may_read_and_not_write_is_unchanged() {
        assert_eq!(cure(0o644, false, Guarded::Unchanged), None);
        for mode in [0o664, 0o646, 0o666] {
            assert_eq!(cure(mode, true, Guarded::Unchanged), Some("go-w"), "{mode:o}");
        }
    }

    #[test]
    fn a_file_of_somebody_else_is_told_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(doubt(&path, Guarded::Secret), None);
        write_new(&path, b"", Access::private()).unwrap();
        assert_eq!(doubt(&path, Guarded::Secret), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let said = doubt(&path, Guarded::Secret).unwrap();
        assert!(said.what.contains(" has mode 0644, ") && said.cure.contains("chmod g-w,o= ") && said.own, "{said:?}");
        assert_eq!(doubt(&path, Guarded::Unchanged), None);
        chown(&path, Some(12_345), None).unwrap();
        let said = doubt(&path, Guarded::Unchanged).unwrap();
        assert!(said.what.ends_with(" belongs to uid 12345") && said.cure.starts_with("chown root ") && !said.own);
    }
}
