//! What a root executor applies to a run: a profile's keys with everything looked up that they leave open. Pure: what
//! the host says comes from [`HostFacts`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::host::{HostFacts, PROGRAM, Person};
use crate::conf::Account;
use crate::conf::agent::{Loaded, Profile, Settings};
use crate::sys::capability;
use crate::sys::user::Uid;
use crate::wire::refusal::Refusal;

/// Directories that many programs share. A file of the agent's own in one of them is hidden alone; from any other
/// place its whole directory is.
const SHARED: [&str; 31] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/pki",
    "/etc/pki/tls",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/private",
    "/etc/ssl",
    "/etc/ssl/certs",
    "/etc/ssl/private",
    "/home",
    "/lib",
    "/lib64",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/usr/local/etc",
    "/var",
    "/var/lib",
    "/var/tmp",
];

/// Where a run has its own processes.
const PROC: &str = "/proc";

/// Everything that a root executor applies besides limits on time, as one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinements {
    profiles: BTreeMap<String, Profile>,
    /// The agent's own places, as configured.
    own: Vec<PathBuf>,
    /// Who the front-end is, if that account exists.
    agent: Option<Uid>,
}

impl Confinements {
    /// Takes the profiles of one snapshot; `scripts` is the allowlist's file.
    ///
    /// # Errors
    /// Every profile that names no account, or that may write where the agent's own files are, with its place; or the
    /// user database cannot be read.
    pub fn new(loaded: &Loaded, scripts: &Path, facts: &dyn HostFacts) -> Result<Self, String> {
        let settings = &loaded.settings;
        settings.profile_errors().map_err(|errors| errors.to_string())?;
        let resolve = |path: &Path| facts.resolve(path).ok().map(|found| found.path);
        settings.writable_errors(scripts, resolve).map_err(|errors| errors.to_string())?;
        let profiles = settings.profiles.values().map(|profile| (profile.name.to_string(), profile.clone()));
        let agent = facts.person(&settings.user);
        let agent = agent.map_err(|error| format!("the account '{}' cannot be looked up: {error}", *settings.user))?;
        let own = own_places(settings, scripts);
        Ok(Self { profiles: profiles.collect(), own, agent: agent.map(|agent| agent.uid) })
    }

    /// The same, with the executor's socket out of every script's reach besides.
    #[must_use]
    pub fn and_hidden(mut self, socket: Option<&Path>) -> Self {
        self.own.extend(socket.map(place));
        self
    }

    /// The confinement of a run of `program` under a profile.
    ///
    /// # Errors
    /// The refusal: the account does not exist or is the agent's own, the profile lets the script write where the
    /// agent's own files are or where nothing can be written, or the script itself is there.
    pub(super) fn of(&self, profile: &str, program: &Path, facts: &dyn HostFacts) -> Result<Confinement, Refusal> {
        let name = profile;
        let refuse = |code: &str, text: String| Refusal::new(code, format!("profile '{name}': {text}"));
        let profile = self.profiles.get(name).ok_or_else(|| refuse("undefined-profile", "it is not defined".into()))?;
        let account = profile.run_as.as_ref().ok_or_else(|| refuse("run-as-missing", "it has no run_as".into()))?;
        let person = find(account, facts)
            .map_err(|error| refuse("run-as-unknown", format!("the account '{}' is not known: {error}", **account)))?;
        if self.agent == Some(person.uid) {
            let text = format!("run_as is '{}', which is the agent's own account", **account);
            return Err(refuse("run-as-agent", text));
        }
        let hidden = self.hidden(facts).map_err(|error| refuse("control-unknown", error))?;
        if profile.writable.iter().flatten().any(|path| is_proc(path, facts)) {
            let text = "its writable path /proc is read-only in every run: name what is to be written below it";
            return Err(refuse("writable-proc", text.to_owned()));
        }
        let reaches = |path: &&PathBuf| hidden.iter().any(|own| path.starts_with(own) || own.starts_with(path));
        let executable = facts.resolve(Path::new(PROGRAM)).ok();
        let holds_us = |path: &&PathBuf| executable.as_ref().is_some_and(|own| own.path.starts_with(path));
        if let Some(path) = profile.writable.iter().flatten().find(|path| reaches(path) || holds_us(path)) {
            let text = format!("its writable path {} reaches what belongs to the agent", path.display());
            return Err(refuse("writable-control", text));
        }
        if let Some(own) = hidden.iter().find(|own| program.starts_with(own)) {
            let text = format!("the script lies in {}, which is hidden from every script", own.display());
            return Err(refuse("script-hidden", text));
        }
        Ok(Confinement { profile: profile.clone(), person, hidden })
    }

    /// The capabilities that some profile has.
    pub(super) fn granted(&self) -> capability::Set {
        let caps = self.profiles.values().flat_map(|profile| &profile.caps);
        caps.fold(capability::Set::default(), |set, cap| set.with(cap.number()))
    }

    /// The agent's own places as the file system resolves them now; those that do not exist need no hiding. One that
    /// somebody else than root has led elsewhere is no place to hide, and no run goes on without it.
    fn hidden(&self, facts: &dyn HostFacts) -> Result<Vec<PathBuf>, String> {
        let mut found = Vec::new();
        for own in &self.own {
            match facts.place(own) {
                Ok(place) => found.push(place),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("{} cannot be found out about: {error}", own.display())),
            }
        }
        found.sort();
        // What lies in another one of them is hidden with it.
        found.dedup_by(|later, earlier| later.starts_with(earlier));
        Ok(found)
    }
}

/// The directory of everything secret or decisive, or the file alone where others have their files beside it. A
/// certificate is public, so that its place is nothing to hide; nor is it written by anyone whom a script could be.
fn own_places(settings: &Settings, scripts: &Path) -> Vec<PathBuf> {
    let files = [
        settings.file.as_path(),
        scripts,
        &settings.key,
        &settings.trusted_dispatchers_path,
        &settings.revoked_serials,
        &settings.cert_staging_path,
    ];
    let socket = settings.executor_socket.iter().map(|socket| socket.as_path());
    let mut places: Vec<PathBuf> = files.into_iter().chain(socket).map(place).collect();
    places.push(settings.async_runs_dir.to_path_buf());
    places.sort();
    places.dedup();
    places
}

/// The directory of a file, unless others have theirs there.
fn place(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !SHARED.iter().any(|shared| directory == Path::new(shared)) => directory.to_owned(),
        _ => file.to_owned(),
    }
}

/// Whether it is the place of the run's own processes. Only a path with such words can be: a link is no writable path.
fn is_proc(path: &Path, facts: &dyn HostFacts) -> bool {
    let roundabout = path.components().any(|component| component == Component::ParentDir);
    path == Path::new(PROC) || roundabout && facts.resolve(path).is_ok_and(|found| found.path == Path::new(PROC))
}

fn find(account: &Account, facts: &dyn HostFacts) -> io::Result<Person> {
    facts.person(account)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such user on this host"))
}

/// The confinement of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    profile: Profile,
    person: Person,
    hidden: Vec<PathBuf>,
}

impl Confinement {
    /// The profile, whose keys say the rest.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whom the script runs as.
    #[must_use]
    pub const fn person(&self) -> &Person {
        &self.person
    }

    /// Files and directories that it cannot reach, whatever its rights.
    #[must_use]
    pub fn hidden(&self) -> &[PathBuf] {
        &self.hidden
    }

    /// The only trees that it may write to; nothing if its account's rights decide.
    #[must_use]
    pub fn writable(&self) -> Option<&[PathBuf]> {
        self.profile.writable.as_deref()
    }

    /// The capabilities that it has.
    #[must_use]
    pub fn caps(&self) -> capability::Set {
        self.profile.caps.iter().fold(capability::Set::default(), |set, cap| set.with(cap.number()))
    }

    /// What is set in its environment on top of the search path: who it is, then the profile's own words.
    pub(super) fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let login = self.person.login.as_ref();
        let home = login.and_then(|(_, home)| home.to_str()).unwrap_or("/");
        let name = login.map(|(name, _)| name.as_str());
        let who = name.into_iter().flat_map(|name| [("USER", name), ("LOGNAME", name)]);
        let own = self.profile.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        [("HOME", home)].into_iter().chain(who).chain(own)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::conf::{Root, Source, agent};
    use crate::executor::pins::Content;
    use crate::sys::file::{FileError, Identity, Resolved, TrustError};
    use crate::sys::user::Gid;

    const TOP: &str = "port = 1\ncert = /etc/ssl/certs/a.crt\nkey = /etc/ssl/private/a.key\nca = /etc/ssl/certs/ca.crt\n\
        executor_socket = /run/c/x.sock\nuser = front\n[profile p]\n";

    /// Every path exists and is what it says, but for links; two accounts.
    struct Host(&'static [(&'static str, &'static str)]);

    impl HostFacts for Host {
        fn resolve(&self, path: &Path) -> io::Result<Resolved> {
            let link = self.0.iter().find(|(from, _)| Path::new(from) == path);
            let path = link.map_or(path, |(_, to)| Path::new(to)).to_owned();
            let gone = path.starts_with("/none");
            if gone {
                Err(io::ErrorKind::NotFound.into())
            } else {
                Ok(Resolved { path, identity: Identity::of(Path::new("/"))? })
            }
        }

        fn resolve_trusted(&self, path: &Path) -> Result<Resolved, TrustError> {
            self.resolve(path).map_err(|error| FileError::new(path, "open", error).into())
        }

        fn place(&self, path: &Path) -> io::Result<PathBuf> {
            self.resolve(path).map(|found| found.path)
        }

        fn content(&self, _: &Path) -> io::Result<Content> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn person(&self, account: &Account) -> io::Result<Option<Person>> {
            let known = [("front", 10), ("backup", 20)].into_iter().find(|(name, _)| account.to_string() == *name);
            Ok(known.map(|(_, id)| Person {
                uid: Uid::from_raw(id),
                gid: Gid::from_raw(id),
                groups: vec![],
                login: None,
            }))
        }
    }

    /// The confinement under a profile of these lines, or why there is none.
    pub(in crate::executor) fn confinement(profile: &str) -> Result<Confinement, String> {
        on(&Host(&[]), profile, "/opt/x")
    }

    fn on(host: &Host, profile: &str, program: &str) -> Result<Confinement, String> {
        let loaded = agent::load(
            &Source::new("/etc/c/agent.conf", format!("{TOP}{profile}\n")),
            &Source::new("/etc/c/scripts.conf", "x = /opt/x profile=p\n".to_owned()),
            &Root::default(),
        );
        let all = Confinements::new(&loaded.unwrap(), Path::new("/etc/c/scripts.conf"), &Host(&[]))?;
        all.of("p", Path::new(program), host).map_err(|refusal| refusal.code().to_owned())
    }

    #[test]
    fn directories_of_the_agents_own_are_hidden_whole_and_files_among_others_alone() {
        let hidden = confinement("run_as = backup").unwrap().hidden().to_vec();
        let expected =
            ["/etc/c", "/etc/ctrl-exec-agent", "/etc/ssl/private/a.key", "/run/c", "/var/lib/ctrl-exec-agent"];
        assert_eq!(hidden, expected.map(PathBuf::from));
    }

    #[test]
    fn what_does_not_exist_is_not_hidden_and_what_is_a_link_is_hidden_where_it_leads() {
        let host = Host(&[("/etc/c", "/none"), ("/run/c", "/srv/socket")]);
        let hidden = on(&host, "run_as = backup", "/opt/x").unwrap().hidden().to_vec();
        assert!(!hidden.contains(&"/etc/c".into()) && hidden.contains(&"/srv/socket".into()), "{hidden:?}");
        assert_eq!(on(&host, "run_as = backup\nwritable = /srv", "/opt/x").unwrap_err(), "writable-control");
        assert_eq!(on(&host, "run_as = backup", "/srv/socket/x").unwrap_err(), "script-hidden");
    }

    #[test]
    fn the_place_of_the_runs_own_processes_is_never_writable() {
        let host = Host(&[("/srv/../proc", "/proc")]);
        for path in ["/proc", "/srv/../proc"] {
            let profile = format!("run_as = backup\nwritable = {path}");
            assert_eq!(on(&host, &profile, "/opt/x").unwrap_err(), "writable-proc", "{path}");
        }
        assert!(on(&host, "run_as = backup\nwritable = /proc/sys/net", "/opt/x").is_ok());
    }

    #[test]
    fn nobody_runs_as_the_front_end_or_as_nobody_known() {
        assert_eq!(confinement("run_as = front").unwrap_err(), "run-as-agent");
        assert_eq!(confinement("run_as = stranger").unwrap_err(), "run-as-unknown");
        assert!(confinement("").unwrap_err().contains("no run_as"));
        assert!(confinement("run_as = backup\nwritable = /etc").unwrap_err().contains("writable path"));
    }
}
