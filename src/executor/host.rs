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
use crate::sys::file::{self, Identity, Led, Resolved, TrustError};
use crate::sys::mount::Changes;
use crate::sys::mounts::{Elsewhere, Table};
use crate::sys::user::{self, Gid, Uid};

/// What a host says about paths and accounts.
pub trait HostFacts {
    /// The file that a path means now.
    ///
    /// # Errors
    /// There is none, or it cannot be looked at.
    fn resolve(&self, path: &Path) -> io::Result<Resolved>;

    /// The same, if root alone can have put it there, or one account besides.
    ///
    /// # Errors
    /// There is none, or what is wrong with it or a directory on the way.
    fn resolve_trusted(&self, path: &Path, besides: Option<Uid>) -> Result<Resolved, TrustError>;

    /// Where one of the agent's own places is now. The agent may write to the directories above some of them, so it must
    /// not be the agent who says where they lead: it would choose what no script sees.
    ///
    /// # Errors
    /// There is no such file, it cannot be looked at, or somebody else than root made a symbolic link on the way.
    fn place(&self, path: &Path) -> io::Result<Led>;

    /// The same of what is not there yet: where it would be, if it were made.
    ///
    /// # Errors
    /// As [`HostFacts::place`], but for a file that is not there.
    fn place_if_made(&self, path: &Path) -> io::Result<Led>;

    /// The other places at which mounts show what is at a place, or a part of it.
    ///
    /// # Errors
    /// The place is gone, or the host's mounts cannot be found out about.
    fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere>;

    /// How many other names a file has in its file system (hard links, link(2)), but for those in this directory. One that was
    /// being made when its maker was killed has one, beside its own.
    ///
    /// # Errors
    /// There is none, or it cannot be looked at.
    fn other_names(&self, path: &Path, but: Option<&Path>) -> io::Result<u64>;

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

    fn resolve_trusted(&self, path: &Path, besides: Option<Uid>) -> Result<Resolved, TrustError> {
        besides.map_or_else(|| file::resolve_trusted(path), |own| file::resolve_kept_by(path, own))
    }

    fn place(&self, path: &Path) -> io::Result<Led> {
        file::resolve_by_links_of_root(path)
    }

    fn place_if_made(&self, path: &Path) -> io::Result<Led> {
        file::led_by_links_of_root(path)
    }

    fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere> {
        Table::read()?.elsewhere(place)
    }

    fn other_names(&self, path: &Path, but: Option<&Path>) -> io::Result<u64> {
        let facts = fs::symlink_metadata(path)?;
        let Some(directory) = but.filter(|_| facts.nlink() > 1) else { return Ok(facts.nlink().saturating_sub(1)) };
        let identity = Identity::of_itself(path)?;
        let mut here = 0;
        for entry in fs::read_dir(directory)? {
            here += u64::from(Identity::of_itself(&entry?.path()).is_ok_and(|found| found == identity));
        }
        Ok(facts.nlink().saturating_sub(here.max(1)))
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
#[derive(Debug)]
pub(super) struct Remembered {
    clock: fn() -> SystemTime,
    memory: RefCell<Memory>,
    /// What is mounted, and where else places show, while nothing is mounted, unmounted or changed.
    mounts: RefCell<Option<Mounts>>,
}

/// The program of this process, which is one file for as long as it lives.
pub(super) const PROGRAM: &str = "/proc/self/exe";

impl Remembered {
    /// Nobody is known yet.
    pub(super) fn new(clock: fn() -> SystemTime) -> Self {
        Self { clock, memory: RefCell::default(), mounts: RefCell::default() }
    }
}

impl HostFacts for Remembered {
    fn resolve(&self, path: &Path) -> io::Result<Resolved> {
        OnDisk.resolve(path)
    }

    fn resolve_trusted(&self, path: &Path, besides: Option<Uid>) -> Result<Resolved, TrustError> {
        OnDisk.resolve_trusted(path, besides)
    }

    fn place(&self, path: &Path) -> io::Result<Led> {
        OnDisk.place(path)
    }

    fn place_if_made(&self, path: &Path) -> io::Result<Led> {
        OnDisk.place_if_made(path)
    }

    fn elsewhere(&self, place: &Path) -> io::Result<Elsewhere> {
        let mut known = self.mounts.borrow_mut();
        if known.as_ref().is_some_and(|known| known.changes.happened().unwrap_or(true)) {
            *known = None;
        }
        let known = match &mut *known {
            Some(known) => known,
            none => none.insert(Mounts::look()?),
        };
        known.elsewhere(place)
    }

    fn other_names(&self, path: &Path, but: Option<&Path>) -> io::Result<u64> {
        OnDisk.other_names(path, but)
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        OnDisk.content(path)
    }

    fn person(&self, account: &Account) -> io::Result<Option<Person>> {
        // Taken before the files are read: a change meanwhile shows the next time.
        let stamps = Stamps::take(&Databases::of_this_host(), (self.clock)());
        self.memory.borrow_mut().person(stamps, account, || OnDisk.person(account))
    }
}

/// The host's mounts since they were last looked at.
#[derive(Debug)]
struct Mounts {
    changes: Changes,
    table: Table,
    elsewhere: BTreeMap<PathBuf, Elsewhere>,
}

impl Mounts {
    /// Watched before it is read: a change meanwhile shows the next time.
    fn look() -> io::Result<Self> {
        let changes = Changes::watch()?;
        Ok(Self { changes, table: Table::read()?, elsewhere: BTreeMap::new() })
    }

    fn elsewhere(&mut self, place: &Path) -> io::Result<Elsewhere> {
        if let Some(known) = self.elsewhere.get(place) {
            return Ok(known.clone());
        }
        let found = self.table.elsewhere(place)?;
        if found.lasting {
            self.elsewhere.insert(place.to_owned(), found.clone());
        }
        Ok(found)
    }
}

/// Who accounts were when the files were like that.
#[derive(Debug, Default)]
struct Memory(Option<(Stamps, BTreeMap<String, Person>)>);

impl Memory {
    /// Who an account is; `look` is asked unless that is known. Nobody is known by no stamps, and nobody is kept under
    /// them. That there is no such account is not kept either.
    fn person(
        &mut self,
        stamps: Option<Stamps>,
        account: &Account,
        look: impl FnOnce() -> io::Result<Option<Person>>,
    ) -> io::Result<Option<Person>> {
        let Some(stamps) = stamps else { return look() };
        let (_, known) = match self.0.take().filter(|(before, _)| *before == stamps) {
            Some(same) => self.0.insert(same),
            None => self.0.insert((stamps, BTreeMap::new())),
        };
        let name = account.to_string();
        if let Some(person) = known.get(&name) {
            return Ok(Some(person.clone()));
        }
        let found = look()?;
        known.extend(found.clone().map(|person| (name, person)));
        Ok(found)
    }
}

/// Where a host says who its accounts are.
#[derive(Clone, Copy, Debug)]
struct Databases<'a> {
    /// Users, then groups.
    files: [&'a Path; 2],
    /// There if something else than the files has a word in it.
    service: &'a Path,
}

impl Databases<'_> {
    fn of_this_host() -> Databases<'static> {
        Databases {
            files: [Path::new("/etc/passwd"), Path::new("/etc/group")],
            service: Path::new("/var/run/nscd/socket"),
        }
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
    fn take(databases: &Databases<'_>, now: SystemTime) -> Option<Self> {
        if fs::symlink_metadata(databases.service).is_ok() {
            return None;
        }
        let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
        let quiet = i64::try_from(now).ok()?.checked_sub(Self::QUIET)?;
        let stamp = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            let identity = [found.dev(), found.ino()].map(u64::cast_signed);
            let times = [found.mtime(), found.ctime(), found.ctime_nsec()];
            let [device, inode] = identity;
            let [modified, changed, nanos] = times;
            (modified.max(changed) < quiet).then_some([device, inode, modified, changed, nanos])
        };
        let [users, groups] = databases.files;
        Some(Self([stamp(users)?, stamp(groups)?]))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Users and groups in files of their own, written long before `now`.
    struct Host {
        dir: tempfile::TempDir,
        now: SystemTime,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for name in ["passwd", "group"] {
                write(&dir.path().join(name));
            }
            Self { dir, now: SystemTime::now() + Duration::from_hours(1) }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn stamps(&self, now: SystemTime) -> Option<Stamps> {
            let (users, groups, service) = (self.path("passwd"), self.path("group"), self.path("socket"));
            Stamps::take(&Databases { files: [&users, &groups], service: &service }, now)
        }
    }

    fn write(path: &Path) {
        file::write_atomic(path, b"x", file::Access::public()).unwrap();
    }

    fn person(uid: u32) -> Person {
        Person { uid: Uid::from_raw(uid), gid: Gid::from_raw(uid), groups: Vec::new(), login: None }
    }

    /// Asks the memory, where a look would find this user; who it says, by number.
    fn ask(memory: &mut Memory, stamps: Option<Stamps>, uid: u32) -> u32 {
        let account = Account::Name("web".to_owned());
        let found = memory.person(stamps, &account, || Ok(Some(person(uid)))).unwrap();
        found.unwrap().uid.as_raw()
    }

    #[test]
    fn an_account_is_known_while_the_files_are_untouched() {
        let (host, mut memory) = (Host::new(), Memory::default());
        assert_eq!(ask(&mut memory, host.stamps(host.now), 1), 1);
        assert_eq!(ask(&mut memory, host.stamps(host.now + Duration::from_hours(9)), 2), 1);
    }

    #[test]
    fn a_change_of_either_file_is_seen() {
        for name in ["passwd", "group"] {
            let (host, mut memory) = (Host::new(), Memory::default());
            assert_eq!(ask(&mut memory, host.stamps(host.now), 1), 1);
            // In its place, as passwd(1) does it, and with the old one's time.
            let modified = host.path(name).metadata().unwrap().modified().unwrap();
            write(&host.path("new"));
            fs::File::open(host.path("new")).unwrap().set_modified(modified).unwrap();
            fs::rename(host.path("new"), host.path(name)).unwrap();
            assert_eq!(ask(&mut memory, host.stamps(host.now), 2), 2, "{name}");
            assert_eq!(ask(&mut memory, host.stamps(host.now), 3), 2, "{name}");
        }
    }

    #[test]
    fn nothing_is_kept_of_files_that_were_changed_a_moment_ago_or_that_do_not_decide_alone() {
        let (host, mut memory) = (Host::new(), Memory::default());
        let written = host.path("passwd").metadata().unwrap().modified().unwrap();
        assert_eq!(ask(&mut memory, host.stamps(written + Duration::from_secs(1)), 1), 1);
        assert_eq!(ask(&mut memory, host.stamps(written + Duration::from_secs(1)), 2), 2);
        // A clock that was set back knows nothing.
        assert!(host.stamps(written - Duration::from_hours(1)).is_none());
        assert_eq!(ask(&mut memory, host.stamps(host.now), 3), 3);
        write(&host.path("socket"));
        assert_eq!(ask(&mut memory, host.stamps(host.now), 4), 4);
        fs::remove_file(host.path("socket")).unwrap();
        fs::remove_file(host.path("group")).unwrap();
        assert_eq!(ask(&mut memory, host.stamps(host.now), 5), 5);
    }

    #[test]
    fn that_there_is_no_such_account_and_that_nobody_could_say_is_forgotten_at_once() {
        let (host, mut memory) = (Host::new(), Memory::default());
        let account = Account::Name("web".to_owned());
        assert_eq!(memory.person(host.stamps(host.now), &account, || Ok(None)).unwrap(), None);
        let broken = || Err(io::Error::other("no"));
        assert!(memory.person(host.stamps(host.now), &account, broken).is_err());
        assert_eq!(ask(&mut memory, host.stamps(host.now), 1), 1);
    }
}
