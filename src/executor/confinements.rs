//! What a root executor applies to the runs of each profile, and which it refuses. Pure: what the host says comes from
//! [`HostFacts`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::confinement::{Confinement, reaches_others};
use super::homes::Homes;
use super::host::{HostFacts, Person};
use super::own::{Found, Own};
use super::reach::Reach;
use super::unmade::Unmade;
use crate::conf::Account;
use crate::conf::agent::{Loaded, Profile};
use crate::sys::capability;
use crate::sys::user::Uid;
use crate::wire::refusal::Refusal;

/// Where a run has its own processes.
const PROC: &str = "/proc";

/// The code of a refusal, and what it says of the profile.
type Refused = (&'static str, String);

/// Everything that a root executor applies besides limits on time, as one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinements {
    profiles: BTreeMap<String, Profile>,
    /// The agent's own places, as configured.
    own: Own,
    /// Those of them that are made if they are not there.
    homes: Homes,
    /// Whether those are taken for there, although no executor has made them yet.
    served: bool,
    /// Who the front-end is, if that account exists.
    agent: Option<Uid>,
    /// Scripts are root's alone.
    trusted: bool,
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
        settings.writable_errors(scripts, |path| meanings(path, facts)).map_err(|errors| errors.to_string())?;
        let profiles = settings.profiles.values().map(|profile| (profile.name.to_string(), plain(profile.clone())));
        let agent = facts.person(&settings.user);
        let agent = agent.map_err(|error| format!("the account '{}' cannot be looked up: {error}", *settings.user))?;
        let own = Own::of(loaded, scripts, facts);
        Ok(Self {
            profiles: profiles.collect(),
            own,
            homes: Own::homes(settings, agent.as_ref()),
            served: false,
            agent: agent.map(|agent| agent.uid),
            trusted: *settings.trusted_paths,
        })
    }

    /// The same, with the executor's socket out of every script's reach besides.
    #[must_use]
    pub fn and_hidden(mut self, socket: Option<&Path>) -> Self {
        if let Some(socket) = socket {
            self.own.add(socket);
        }
        self
    }

    /// Makes the agent's own places that are not there and that the configuration does not name; says what it made.
    pub(super) fn make_homes(&self) -> Vec<&Path> {
        self.homes.make()
    }

    /// The same, as it is once an executor serves.
    pub(super) fn once_served(&self) -> Self {
        Self { served: true, ..self.clone() }
    }

    /// The same, with what an earlier configuration kept secret that the agent may still use.
    pub(super) fn and_kept(&mut self, earlier: &Self) {
        self.own.keep(&earlier.own);
    }

    /// Who the front-end is, if that account exists.
    pub(super) const fn agent(&self) -> Option<Uid> {
        self.agent
    }

    /// The confinement of a run of `program` under a profile.
    ///
    /// # Errors
    /// The refusal: the account does not exist or is the agent's own, the profile lets the script write where the
    /// agent's own files are or where nothing can be written, or the script itself is there.
    pub(super) fn of(&self, profile: &str, program: &Path, facts: &dyn HostFacts) -> Result<Confinement, Refusal> {
        let refuse = |(code, text): (&str, String)| Refusal::new(code, format!("profile '{profile}': {text}"));
        let (profile, person) = self.person_of(profile, facts).map_err(refuse)?;
        let found = self.around(profile, &person, program, facts).map_err(refuse)?;
        Ok(Confinement { profile: profile.clone(), person, found })
    }

    fn person_of(&self, name: &str, facts: &dyn HostFacts) -> Result<(&Profile, Person), Refused> {
        let profile = self.profiles.get(name).ok_or_else(|| ("undefined-profile", "it is not defined".to_owned()))?;
        let account = profile.run_as.as_ref().ok_or_else(|| ("run-as-missing", "it has no run_as".to_owned()))?;
        let person = find(account, facts);
        let person =
            person.map_err(|error| ("run-as-unknown", format!("the account '{}' is not known: {error}", **account)))?;
        if self.agent == Some(person.uid) {
            return Err(("run-as-agent", format!("run_as is '{}', which is the agent's own account", **account)));
        }
        Ok((profile, person))
    }

    /// What has to be hidden and kept from a person's script.
    fn around(
        &self,
        profile: &Profile,
        person: &Person,
        program: &Path,
        facts: &dyn HostFacts,
    ) -> Result<Found, Refused> {
        let writable = profile.writable.as_deref().unwrap_or_default();
        if writable.iter().any(|path| path == Path::new(PROC)) {
            let text = "its writable path /proc is read-only in every run: name what is to be written below it";
            return Err(("writable-proc", text.to_owned()));
        }
        let unknown = |error| ("control-unknown", error);
        let (secret, mut unmade) = self.own.secret(facts).map_err(unknown)?;
        let passes_modes = reaches_others(profile, person);
        // Listed scripts are root's alone, unless that is lifted.
        let reach = Reach::of(writable, passes_modes || !self.trusted, facts).map_err(unknown)?;
        self.keeps_away(&reach, &secret, &unmade)?;
        if let Some(own) = self.own.linked().first().filter(|_| passes_modes) {
            return Err(("own-linked", of_two_names(own)));
        }
        if let Some(script) = self.own.linked_script(&reach, profile.name.as_str(), facts) {
            return Err(("script-linked", of_two_scripts(script)));
        }
        if let Some(own) = secret.hidden.iter().find(|own| program.starts_with(own)) {
            let text = format!("the script lies in {}, which is hidden from every script", own.display());
            return Err(("script-hidden", text));
        }
        if profile.writable.is_some() {
            // Nothing else is there to be written to.
            let within = self.own.scripts_within(&reach, profile.name.as_str(), facts);
            let within = within.map_err(|why| ("writable-script", format!("it may write where the script {why}")))?;
            return Ok(secret.and(within));
        }
        let (public, more) = self.own.public(&secret.hidden, facts).map_err(unknown)?;
        unmade.extend(more);
        let missing = unmade.iter().find(|own| {
            (passes_modes || !own.is_roots(facts)) && !(self.served && self.homes.would_have(&own.place, facts))
        });
        if let Some(own) = missing {
            let makes = self.homes.would_have(&own.place, facts);
            return Err(("own-missing", of_nothing(&own.name, makes)));
        }
        Ok(secret.and(public))
    }

    /// Whether none of the writable paths reaches anything of the agent's.
    fn keeps_away(&self, reach: &Reach<'_>, secret: &Found, unmade: &[Unmade]) -> Result<(), Refused> {
        let meets = |path: &&PathBuf| secret.hidden.iter().any(|own| path.starts_with(own) || own.starts_with(path));
        let would = || unmade.iter().find(|own| reach.has(&own.place)).map(|own| own.name.as_path());
        let text = if let Some(path) = reach.writable().iter().find(meets) {
            format!("its writable path {} reaches what belongs to the agent", path.display())
        } else if let Some(own) = self.own.within(reach).or_else(would) {
            format!("a writable path of it reaches what belongs to the agent: {}", own.display())
        } else {
            return Ok(());
        };
        Err(("writable-control", text))
    }

    /// Files of the agent's own that have another name, by which a script could come to them.
    pub(super) fn linked(&self) -> &[PathBuf] {
        self.own.linked()
    }

    /// This program's file, if it has names that nobody expects; how many, and the profiles whose scripts could write to one.
    pub(super) fn named(&self, facts: &dyn HostFacts) -> Option<(&Path, u64, Vec<&str>)> {
        let writes = |name: &&String| {
            self.person_of(name, facts).is_ok_and(|(profile, person)| reaches_others(profile, &person))
        };
        let profiles: Vec<&str> = self.profiles.keys().filter(writes).map(String::as_str).collect();
        let trees = profiles.iter().filter_map(|name| self.profiles.get(*name)?.writable.as_deref());
        let trees: Vec<&PathBuf> = trees.flatten().collect();
        let reached = |place: &Path| trees.iter().any(|tree| place.starts_with(tree) || tree.starts_with(place));
        let (program, names) = self.own.named(&reached, facts)?;
        if profiles.is_empty() { None } else { Some((program, names, profiles)) }
    }

    /// What each profile may write to beside scripts of others: [`Own::shared_directories`]. What cannot be found out about now
    /// is no reason to be silent about the rest.
    pub(super) fn shared_directories(&self, facts: &dyn HostFacts) -> Vec<(&str, (&Path, &str, &str))> {
        let each = self.profiles.iter().filter_map(|(name, profile)| {
            let reach = Reach::of(profile.writable.as_deref().unwrap_or_default(), false, facts).ok()?;
            let shared = self.own.shared_directories(&reach, name);
            Some(shared.into_iter().map(move |shared| (name.as_str(), shared)))
        });
        each.flatten().collect()
    }

    /// The capabilities that some profile has.
    pub(super) fn granted(&self) -> capability::Set {
        let caps = self.profiles.values().flat_map(|profile| &profile.caps);
        caps.fold(capability::Set::default(), |set, cap| set.with(cap.number()))
    }
}

/// What a path means now, or would mean if it were made: the file that it leads to, and every other place where that shows or
/// would show. Nothing if not even the first of its directories is there.
#[must_use]
pub fn meanings(path: &Path, facts: &dyn HostFacts) -> Vec<PathBuf> {
    let meant = path.ancestors().find_map(|existing| {
        let here = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        let (found, rest) = (facts.resolve(here).ok()?, path.strip_prefix(existing).ok()?);
        // Whoever may not look is told of what can be seen; the executor may.
        let others = facts.elsewhere(&found.path).unwrap_or_default();
        if rest.as_os_str().is_empty() {
            return Some([found.path].iter().chain(others.all()).cloned().collect());
        }
        // What is not there yet would show where its directory shows whole, and not at a mount of something else in that.
        Some([found.path].iter().chain(&others.whole).map(|place| place.join(rest)).collect())
    });
    meant.unwrap_or_default()
}

/// What is wrong with a file of the agent's own that has another name.
#[must_use]
pub fn of_two_names(own: &Path) -> String {
    let own = own.display();
    format!(
        "{own} has another name besides (a hard link), at which nothing hides it: remove that one \
         ('find / -xdev -samefile {own}' tells it) and reload the agent"
    )
}

/// What is wrong with something of the agent's own that is not there, and cannot be hidden.
fn of_nothing(own: &Path, makes: bool) -> String {
    let own = own.display();
    let remedy = if makes {
        "start the executor or reload the agent, which makes it"
    } else {
        "make it, with the owner and the mode that the agent needs"
    };
    format!(
        "{own}, which is the agent's, is not there, so that its scripts could make it: {remedy}, or have agent.conf name a place in \
         a directory of the agent's own"
    )
}

/// What is wrong with a script of another profile that has another name.
fn of_two_scripts(script: &Path) -> String {
    let script = script.display();
    format!(
        "{script}, which is another profile's, has another name besides (a hard link), by which it might be written to: give it \
         a file of its own ('cp -p {script} {script}.new && mv {script}.new {script}')"
    )
}

/// The profile with `..` taken out of its writable paths, which are compared by their words from then on. Where no component
/// is a link, they mean the same; and where one is, no run begins.
fn plain(mut profile: Profile) -> Profile {
    for path in profile.writable.iter_mut().flatten() {
        *path = path.components().fold(PathBuf::new(), |mut done, component| {
            match component {
                Component::ParentDir => drop(done.pop()),
                other => done.push(other),
            }
            done
        });
    }
    profile
}

fn find(account: &Account, facts: &dyn HostFacts) -> io::Result<Person> {
    facts.person(account)?.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such user on this host"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::conf::{Root, Source, agent};
    use crate::executor::pins::Content;
    use crate::sys::file::{FileError, Identity, Led, Resolved, TrustError};
    use crate::sys::mounts::Elsewhere;
    use crate::sys::seccomp::{List, SetIds, Wanted};
    use crate::sys::user::Gid;

    const TOP: &str = "port = 1\ncert = /etc/ssl/certs/a.crt\nkey = /etc/ssl/private/a.key\nca = /etc/ssl/certs/ca.crt\n\
        executor_socket = /run/c/x.sock\nuser = front\n[profile p]\n";

    /// Every path exists and is what it says, but for links; two accounts.
    struct Host(&'static [(&'static str, &'static str)]);

    impl HostFacts for Host {
        fn resolve(&self, path: &Path) -> io::Result<Resolved> {
            let link = self.0.iter().find_map(|(from, to)| Some(Path::new(to).join(path.strip_prefix(from).ok()?)));
            let path: PathBuf = link.unwrap_or_else(|| path.to_owned()).components().collect();
            let gone = path.starts_with("/none");
            if gone {
                Err(io::ErrorKind::NotFound.into())
            } else {
                Ok(Resolved { path, identity: Identity::of(Path::new("/"))? })
            }
        }

        fn resolve_trusted(&self, path: &Path, _: Option<Uid>) -> Result<Resolved, TrustError> {
            self.resolve(path).map_err(|error| FileError::new(path, "open", error).into())
        }

        fn place(&self, path: &Path) -> io::Result<Led> {
            self.resolve(path).map(|found| Led::straight(found.path))
        }

        fn place_if_made(&self, path: &Path) -> io::Result<Led> {
            Ok(Led::straight(path.to_owned()))
        }

        fn elsewhere(&self, _: &Path) -> io::Result<Elsewhere> {
            Ok(Elsewhere::default())
        }

        fn other_names(&self, _: &Path, _: Option<&Path>) -> io::Result<u64> {
            Ok(0)
        }

        fn content(&self, _: &Path) -> io::Result<Content> {
            Err(io::ErrorKind::NotFound.into())
        }

        fn person(&self, account: &Account) -> io::Result<Option<Person>> {
            let known =
                [("root", 0), ("front", 10), ("backup", 20)].into_iter().find(|(name, _)| account.to_string() == *name);
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
        let key = "/etc/ssl/private/a.key";
        let journal = format!("{key}.pairing");
        let expected = ["/etc/c", "/etc/ctrl-exec-agent", key, &journal, "/run/c", "/var/lib/ctrl-exec-agent"];
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
    fn a_profile_that_gains_the_host_in_the_end_is_named() {
        let owns = |profile: &str| confinement(profile).unwrap().owns_the_host();
        assert!(owns("run_as = root"));
        for cap in ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID"] {
            assert!(owns(&format!("run_as = backup\ncaps = CAP_KILL,{cap}")), "{cap}");
        }
        for profile in ["run_as = backup", "run_as = backup\ncaps = CAP_KILL,CAP_NET_ADMIN"] {
            assert!(!owns(profile), "{profile}");
        }
        assert!(!owns("run_as = root\nwritable = /srv") && !owns("run_as = backup\ncaps = CAP_CHOWN\nwritable = /srv"));
    }

    #[test]
    fn which_calls_are_refused_depends_on_what_could_be_left_behind() {
        let set_ids = |profile: &str| confinement(profile).unwrap().calls().set_ids;
        for (profile, expected) in [
            ("run_as = backup", SetIds::NoUser),
            ("run_as = backup\ncaps = CAP_KILL\nsyscalls = off", SetIds::NoUser),
            ("run_as = backup\ncaps = CAP_FSETID", SetIds::Neither),
            ("run_as = backup\nno_new_privileges = no", SetIds::Neither),
            ("run_as = backup\ncaps = CAP_SETFCAP\nallow_dangerous_caps = yes", SetIds::Neither),
            ("run_as = root\nwritable = /srv\nsyscalls = off", SetIds::Neither),
            ("run_as = root", SetIds::Free),
            ("run_as = root\nwritable = /srv\nsyscalls = off\nallow_dangerous_caps = yes", SetIds::Free),
        ] {
            assert_eq!(set_ids(profile), expected, "{profile}");
        }
        let calls = confinement("run_as = root\nnetwork = no\nsyscalls = off").unwrap().calls();
        assert_eq!(calls, Wanted { list: List::Bounds, no_network: true, set_ids: SetIds::Free });
        assert!(!confinement("run_as = root\nsyscalls = off").unwrap().calls().is_nothing());
        let undone = confinement("run_as = root\nsyscalls = off\nallow_dangerous_caps = yes").unwrap();
        assert!(undone.calls().is_nothing());
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
