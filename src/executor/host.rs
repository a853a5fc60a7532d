//! What a decision asks this host for, so that it can be tried without one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::pins::{self, Content};
use crate::conf::Account;
use crate::sys::file::{self, Identity, Resolved, TrustError};
use crate::sys::user::{self, Gid, Uid};

/// What a host says about paths and accounts.
pub trait HostFacts {
    /// The file that a path means now.
    ///
    /// # Errors
    /// There is none, or it cannot be looked at.
    fn resolve(&self, path: &Path) -> io::Result<Resolved>;

    /// The same, if root alone can have put it there.
    ///
    /// # Errors
    /// There is none, or what is wrong with it or a directory on the way.
    fn resolve_trusted(&self, path: &Path) -> Result<Resolved, TrustError>;

    /// Where one of the agent's own places is now. The agent may write to the directories above some of them, so it must
    /// not be the agent who says where they lead: it would choose what no script sees.
    ///
    /// # Errors
    /// There is no such file, it cannot be looked at, or somebody else than root made a symbolic link on the way.
    fn place(&self, path: &Path) -> io::Result<PathBuf>;

    /// What is in the file that a path means now, which is asked only for a script that is pinned to its content.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    fn content(&self, path: &Path) -> io::Result<Content>;

    /// Who an account is; `None` if there is no such user. A number without a user is a person too.
    ///
    /// # Errors
    /// The user database cannot be read.
    fn person(&self, account: &Account) -> io::Result<Option<Person>>;
}

/// The facts of this host.
#[derive(Clone, Copy, Debug)]
pub struct OnDisk;

impl HostFacts for OnDisk {
    fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        file::resolve(path)
    }

    fn resolve_trusted(&self, path: &Path) -> Result<Resolved, TrustError> {
        file::resolve_trusted(path)
    }

    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        file::resolve_by_links_of_root(path)
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        pins::content(path)
    }

    fn person(&self, account: &Account) -> io::Result<Option<Person>> {
        let login = match account {
            Account::Name(name) => user::Account::by_name(name)?,
            Account::Id(id) => {
                let (uid, gid) = (Uid::from_raw(*id), Gid::from_raw(*id));
                return Ok(Some(Person { uid, gid, groups: Vec::new(), login: None }));
            }
        };
        let person = |login: user::Account| {
            let groups = login.groups()?;
            let (uid, gid) = (login.uid(), login.gid());
            Ok(Person { uid, gid, groups, login: Some((login.name().to_owned(), login.home().to_owned())) })
        };
        login.map(person).transpose()
    }
}

/// The facts of this host, without looking up again and again who an account is.
///
/// Who it was is believed while the files that say so are the same ones and untouched. Where a name service has a word
/// in it (musl asks its cache, nscd(8)), every question is asked anew.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    people: RefCell<Option<(Stamps, BTreeMap<String, Person>)>>,
    /// What [`PROGRAM`] was. It is still the same place if it still leads to the same file, which is asked every time.
    program: RefCell<Option<Resolved>>,
}

/// The program of this process, which is one file for as long as it lives.
pub(super) const PROGRAM: &str = "/proc/self/exe";

impl HostFacts for Remembered {
    fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        if path != Path::new(PROGRAM) {
            return OnDisk.resolve(path);
        }
        let mut known = self.program.borrow_mut();
        if let Some(known) =
            known.as_ref().filter(|known| Identity::of(&known.path).is_ok_and(|id| id == known.identity))
        {
            return Ok(known.clone());
        }
        let found = OnDisk.resolve(path)?;
        Ok(known.insert(found).clone())
    }

    fn resolve_trusted(&self, path: &Path) -> Result<Resolved, TrustError> {
        OnDisk.resolve_trusted(path)
    }

    fn place(&self, path: &Path) -> io::Result<PathBuf> {
        OnDisk.place(path)
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        OnDisk.content(path)
    }

    fn person(&self, account: &Account) -> io::Result<Option<Person>> {
        // Taken before the files are read: a change meanwhile shows the next time.
        let Some(stamps) = Stamps::take() else { return OnDisk.person(account) };
        let mut memory = self.people.borrow_mut();
        let (_, known) = match memory.take().filter(|(before, _)| *before == stamps) {
            Some(same) => memory.insert(same),
            None => memory.insert((stamps, BTreeMap::new())),
        };
        let name = account.to_string();
        if let Some(person) = known.get(&name) {
            return Ok(Some(person.clone()));
        }
        let found = OnDisk.person(account)?;
        known.extend(found.clone().map(|person| (name, person)));
        Ok(found)
    }
}

/// What changes when one of the files changes.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([[i64; 5]; 2]);

impl Stamps {
    /// A file that was touched less long ago may be touched again without its stamp changing: clocks of file systems
    /// have ticks.
    const QUIET: i64 = 2;

    /// Nothing if the files alone do not decide, or have only just been changed.
    fn take() -> Option<Self> {
        if fs::symlink_metadata("/var/run/nscd/socket").is_ok() {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let quiet = i64::try_from(now).ok()?.checked_sub(Self::QUIET)?;
        let stamp = |path: &str| {
            let found = fs::metadata(path).ok()?;
            let identity = [found.dev(), found.ino()].map(u64::cast_signed);
            let times = [found.mtime(), found.ctime(), found.ctime_nsec()];
            let [device, inode] = identity;
            let [modified, changed, nanos] = times;
            (modified.max(changed) < quiet).then_some([device, inode, modified, changed, nanos])
        };
        Some(Self([stamp("/etc/passwd")?, stamp("/etc/group")?]))
    }
}

/// The ids that a script gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
    /// Login name and home directory; a bare number has none.
    pub login: Option<(String, PathBuf)>,
}
