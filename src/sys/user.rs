//! Users: who we are, who somebody is, and becoming somebody with fewer rights for good.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{self, User};

use super::call::{Numbers, call};
use super::capability;

pub use nix::unistd::{Gid, Uid};

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

impl Account {
    /// Looks a user up by name; `None` if there is no such user.
    ///
    /// # Errors
    /// The user database cannot be read, or the name holds a NUL byte.
    pub fn by_name(name: &str) -> io::Result<Option<Self>> {
        if name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a user name cannot hold a NUL byte"));
        }
        Ok(User::from_name(name)?.map(Self::from))
    }

    /// Looks a user up by number; `None` if the number has no name.
    ///
    /// # Errors
    /// The user database cannot be read.
    pub fn by_uid(uid: Uid) -> io::Result<Option<Self>> {
        Ok(User::from_uid(uid)?.map(Self::from))
    }

    /// Login name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// User number.
    #[must_use]
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// Primary group.
    #[must_use]
    pub const fn gid(&self) -> Gid {
        self.gid
    }

    /// Every group the user is in, the primary one included.
    ///
    /// # Errors
    /// The group database cannot be read.
    pub fn groups(&self) -> io::Result<Vec<Gid>> {
        // Some C libraries take a file that they cannot read for one in which this user is not.
        readable(Path::new("/etc/group"))?;
        let name = CString::new(self.name.as_str())?;
        Ok(unistd::getgrouplist(&name, self.gid)?)
    }

    /// Home directory.
    #[must_use]
    pub fn home(&self) -> &std::path::Path {
        &self.home
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir }
    }
}

/// Whether a file, if there is one, can be read to its end.
fn readable(path: &Path) -> io::Result<()> {
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
    match read {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{} cannot be read: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// The user whose rights this process has now (the effective one).
#[must_use]
pub fn current() -> (Uid, Gid) {
    (Uid::effective(), Gid::effective())
}

/// Whether this process acts as root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A change of user that could not be made or proven. The process must end: its rights are in between.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// A system call failed.
    #[error("cannot become user {user}: {step}")]
    Step {
        /// The user that was wanted.
        user: String,
        /// What was being done.
        step: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Every call succeeded and the rights are still not those of the user.
    #[error("cannot become user {user}: {fault}")]
    Unproven {
        /// The user that was wanted.
        user: String,
        /// What was found when reading back.
        fault: &'static str,
    },
}

/// Becomes `account` for good: supplementary groups, group and user ids, no capabilities, no new privileges by
/// exec. Reads everything back, and tries to return to root to see it refused.
///
/// Call it before a second thread exists: capabilities and no-new-privileges belong to a thread (capabilities(7)).
///
/// # Errors
/// More than one thread, not root and not already that user, or any step that fails or cannot be proven.
pub fn drop_to(account: &Account) -> Result<(), DropError> {
    let user = || account.name.clone();
    let step = |step| move |source: io::Error| DropError::Step { user: account.name.clone(), step, source };
    let name = CString::new(account.name.as_str()).map_err(|error| step("name")(error.into()))?;
    if std::fs::read_dir("/proc/self/task").map_err(step("count threads"))?.count() != 1 {
        return Err(DropError::Unproven { user: user(), fault: "more than one thread runs" });
    }
    let privileged = is_root();
    if privileged {
        unistd::initgroups(&name, account.gid).map_err(|errno| step("set the supplementary groups")(errno.into()))?;
    }
    let (uid, gid) = (account.uid, account.gid);
    unistd::setresgid(gid, gid, gid).map_err(|errno| step("set the group")(errno.into()))?;
    become_user(uid).map_err(step("set the user"))?;
    clear_capabilities().map_err(step("give up capabilities"))?;
    prctl::set_no_new_privs().map_err(|errno| step("set no_new_privs")(errno.into()))?;
    match unproven(account, privileged) {
        None => Ok(()),
        Some(fault) => Err(DropError::Unproven { user: user(), fault }),
    }
}

/// Reads back what [`drop_to`] has set; nothing if all is as it should be.
fn unproven(account: &Account, groups_were_set: bool) -> Option<&'static str> {
    let (uid, gid) = (account.uid, account.gid);
    let uids = unistd::getresuid().is_ok_and(|now| [now.real, now.effective, now.saved] == [uid; 3]);
    let gids = unistd::getresgid().is_ok_and(|now| [now.real, now.effective, now.saved] == [gid; 3]);
    if !uids || !gids {
        return Some("the user or group ids are not the ones that were set");
    }
    if groups_were_set && !groups_match(account) {
        return Some("the supplementary groups are not the user's");
    }
    let root = Uid::from_raw(0);
    if !uid.is_root() && unistd::setresuid(root, root, root) != Err(Errno::EPERM) {
        return Some("root could be regained");
    }
    if !gid.eq(&Gid::from_raw(0)) && unistd::setegid(Gid::from_raw(0)).is_ok() {
        return Some("root's group could be regained");
    }
    if !uid.is_root() && !capabilities_are_empty() {
        return Some("capabilities are left");
    }
    if prctl::get_no_new_privs() != Ok(true) {
        return Some("no_new_privs is not set");
    }
    None
}

fn groups_match(account: &Account) -> bool {
    let Ok(name) = CString::new(account.name.as_str()) else { return false };
    let (Ok(mut wanted), Ok(mut found)) = (unistd::getgrouplist(&name, account.gid), unistd::getgroups()) else {
        return false;
    };
    for groups in [&mut wanted, &mut found] {
        groups.push(account.gid);
        groups.sort_unstable_by_key(|group| group.as_raw());
        groups.dedup();
    }
    wanted == found
}

/// Permitted, effective, inheritable and ambient sets in the kernel's own words.
fn capabilities_are_empty() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
        .iter()
        .all(|key| value(key).is_some_and(|set| set.bytes().all(|digit| digit == b'0')))
}

/// Gives up every capability of this thread: empties the permitted, effective and inheritable sets, and the kernel
/// empties the ambient one with them. What is started afterwards by a user who is not root has none either.
///
/// # Errors
/// capset(2) is not allowed here.
pub fn clear_capabilities() -> io::Result<()> {
    capability::set(capability::Set::default())
}

/// How many processes the user may have from now on (`RLIMIT_NPROC`, getrlimit(2)).
///
/// # Errors
/// It is above the hard limit, and this process may not raise that.
pub fn limit_processes(most: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NPROC, most, most)?)
}

/// Makes these the supplementary groups.
///
/// # Errors
/// No `CAP_SETGID`.
pub fn set_groups(groups: &[Gid]) -> io::Result<()> {
    Ok(unistd::setgroups(groups)?)
}

/// Makes these the real, effective and saved ids, group first.
///
/// # Errors
/// No `CAP_SETUID` or `CAP_SETGID`.
pub fn become_ids(uid: Uid, gid: Gid) -> io::Result<()> {
    unistd::setresgid(gid, gid, gid)?;
    become_user(uid)
}

/// Becomes a user, closed to the others of it (`PR_SET_DUMPABLE`, prctl(2)) from the first moment on.
///
/// With another effective user, the kernel opens this process as `fs.suid_dumpable` says (`proc_sys_fs(5)`): with 1, to whoever has its
/// three ids, memory and descriptors. So that comes first, while the other two still are nobody's who could look; then it is
/// closed, and the rest changes nothing of that.
fn become_user(uid: Uid) -> io::Result<()> {
    let unchanged = Uid::from_raw(u32::MAX);
    unistd::setresuid(unchanged, uid, unchanged)?;
    prctl::set_dumpable(false)?;
    Ok(unistd::setresuid(uid, uid, uid)?)
}

/// Whether all ids are these, and the supplementary groups exactly these.
///
/// # Errors
/// Not expected of the kernel.
pub fn is_exactly(uid: Uid, gid: Gid, groups: &[Gid]) -> io::Result<bool> {
    let (uids, gids) = (unistd::getresuid()?, unistd::getresgid()?);
    let ids =
        [uids.real, uids.effective, uids.saved] == [uid; 3] && [gids.real, gids.effective, gids.saved] == [gid; 3];
    let sorted = |groups: &[Gid]| groups.iter().map(|group| group.as_raw()).collect::<std::collections::BTreeSet<_>>();
    Ok(ids && sorted(&unistd::getgroups()?) == sorted(groups))
}

/// From now on nobody without `CAP_SYS_RESOURCE` changes this process's limits: who did would have to be of its group, its
/// effective and its saved one at the same time (prlimit(2)), and the last is another now, unless all are that of the daemons. It
/// gives nobody a right over this process.
///
/// # Errors
/// No `CAP_SETGID`, or the user namespace has one group alone.
pub fn keep_limits() -> io::Result<()> {
    /// That of the daemons: any but the one that it has would do.
    const ANOTHER: u32 = 1;
    call(Numbers::SavedGroup(ANOTHER)).map(drop)
}

/// Exec gives nothing more from now on: no set-user-ID, no file capabilities (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
///
/// # Errors
/// Not expected of the kernel.
pub fn renounce_privileges() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// Whether [`renounce_privileges`] is in force.
///
/// # Errors
/// Not expected of the kernel.
pub fn has_renounced_privileges() -> io::Result<bool> {
    Ok(prctl::get_no_new_privs()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys::process;

    /// Whether a test that needs root can run. Where CI is set, none is left out.
    pub(crate) fn has_root() -> bool {
        let root = is_root();
        assert!(
            root || std::env::var_os("CI").is_none_or(|set| set.is_empty()),
            "CI runs every test, and this as root"
        );
        root
    }

    #[test]
    fn root_is_known_by_name_and_a_stranger_is_not() {
        let root = Account::by_name("root").unwrap().unwrap();
        assert!(root.uid().is_root());
        assert_eq!(Account::by_uid(Uid::from_raw(0)).unwrap().unwrap(), root);
        assert_eq!(Account::by_name("no-such-user-here").unwrap(), None);
        assert!(Account::by_name("a\0b").is_err());
    }

    #[test]
    fn rights_are_not_dropped_while_another_thread_has_them() {
        let account = Account::by_uid(Uid::effective()).unwrap().unwrap();
        let error = drop_to(&account).unwrap_err();
        assert!(error.to_string().contains("more than one thread"), "{error}");
    }

    /// Runs in a child of the re-executed test binary: see `process::tests::role`.
    #[test]
    fn root_becomes_somebody_else_for_good() {
        let text = process::tests::in_a_process("drop", || {
            let Some(nobody) = Account::by_name("nobody").unwrap() else { return "nobody is missing".to_owned() };
            if !is_root() {
                return drop_to(&nobody).map_or_else(|error| error.to_string(), |()| "dropped".to_owned());
            }
            drop_to(&nobody).unwrap();
            assert!(unistd::setuid(Uid::from_raw(0)).is_err());
            drop_to(&nobody).unwrap();
            format!("{:?} {}", current(), capabilities_are_empty())
        });
        if is_root() {
            assert!(text.ends_with("true"), "{text}");
        } else {
            assert!(text.starts_with("cannot become"), "{text}");
        }
    }
}
