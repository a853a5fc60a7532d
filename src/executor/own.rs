//! Where the agent's own files are now, and those of others that decide what it does. Pure, as `confinement`.

use std::io;
use std::path::{Path, PathBuf};

use super::homes::Homes;
use super::host::{HostFacts, PROGRAM, Person};
use super::names;
use super::reach::{Open, Reach, unknown};
use super::unmade::{self, Unmade};
use crate::conf::agent::{Loaded, Settings, pairing_journal};
use crate::sys::file::{Led, is_plainly_missing};
use crate::sys::mounts::Elsewhere;

/// Directories that many programs share. A file of the agent's own in one of them is hidden alone; from any other
/// place its whole directory is. Alone, it is hidden until it is replaced, and then whoever could read it is ended (`covers`):
/// to cover the directory would take everybody's files from scripts.
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

/// What a contract of a script's is called, behind the script's own name.
const SIDECAR: &str = ".schema.json";

/// As configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// What no script sees: directories of everything secret or decisive, or files alone where others have theirs beside them;
    /// and each of those files by its own name, which may be a link out of its directory.
    secret: Vec<PathBuf>,
    /// What scripts may see and must not change.
    public: Vec<PathBuf>,
    /// Files of both kinds that had another name when the configuration was read, at which nothing would hide them.
    linked: Vec<PathBuf>,
    /// This program, as it was called when the configuration was read. A newer one that takes its name is guarded as well.
    program: Option<PathBuf>,
    /// Where the public ones were then.
    decisive: Vec<PathBuf>,
    scripts: Vec<Listed>,
    /// Of the secret ones, where jobs are, and where they were by earlier configurations.
    runs: Vec<PathBuf>,
}

/// What a listed script is, as it was when the allowlist was read: only root can have changed that since.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    profile: String,
    led: Led,
    /// Its contract, or where that would be.
    contract: Led,
}

/// What is there now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// To be hidden from every script, wherever it shows.
    pub(super) hidden: Vec<PathBuf>,
    /// To be kept from being changed, wherever it shows.
    pub(super) kept: Vec<PathBuf>,
    /// What else decides where those are found.
    pub(super) passed: Vec<PathBuf>,
}

impl Own {
    /// Those of a configuration; `scripts` is the allowlist's file. A certificate is public, so that it is nothing to hide.
    pub(super) fn of(loaded: &Loaded, scripts: &Path, facts: &dyn HostFacts) -> Self {
        let settings = &loaded.settings;
        let mut own =
            Self { runs: vec![settings.async_runs_dir.to_path_buf()], public: public(settings), ..Self::default() };
        own.secret.clone_from(&own.runs);
        let files = [
            settings.file.as_path(),
            scripts,
            &settings.key,
            &settings.trusted_dispatchers_path,
            &settings.revoked_serials,
            &settings.cert_staging_path,
        ];
        let socket = settings.executor_socket.iter().map(|socket| socket.as_path());
        let journal = journal_alone(settings);
        files.into_iter().chain(socket).chain(journal.as_deref()).for_each(|file| own.add(file));
        own.linked = own.with_other_names(&files, facts);
        own.program = facts.resolve(Path::new(PROGRAM)).ok().map(|program| program.path);
        own.decisive = own.public.iter().map(|file| led(file, facts).place).collect();
        own.scripts.extend(loaded.allowlist.iter().map(|entry| Listed {
            name: entry.name().to_string(),
            profile: entry.profile().to_string(),
            led: led(entry.path(), facts),
            contract: contract(entry.path(), facts),
        }));
        own
    }

    /// What of a configuration's is made if it is not there.
    pub(super) fn homes(settings: &Settings, agent: Option<&Person>) -> Homes {
        Homes::of(settings, agent, journal_alone(settings))
    }

    /// Files of the agent's own that have another name. It cannot be hidden, since nobody knows it.
    pub(super) fn linked(&self) -> &[PathBuf] {
        &self.linked
    }

    /// Those of these files and of the public ones; names in a directory that is hidden itself do not count.
    fn with_other_names(&self, files: &[&Path], facts: &dyn HostFacts) -> Vec<PathBuf> {
        let place = |path: &Path| facts.place(path).map(|led| led.place);
        let hidden: Vec<PathBuf> = self.secret.iter().filter_map(|secret| place(secret).ok()).collect();
        let has_others = |file: &PathBuf| {
            let covered = file.parent().filter(|above| hidden.iter().any(|hidden| above.starts_with(hidden)));
            // One that cannot be looked at is not there for a script either.
            facts.other_names(file, covered).is_ok_and(|others| others > 0)
        };
        let all = files.iter().copied().chain(self.public.iter().map(PathBuf::as_path));
        all.filter_map(|file| place(file).ok()).filter(has_others).collect()
    }

    /// This program's file, if it has names that nobody expects, and how many.
    pub(super) fn named(&self, reached: &dyn Fn(&Path) -> bool, facts: &dyn HostFacts) -> Option<(&Path, u64)> {
        let program = self.program.as_deref()?;
        Some((program, names::unexpected(program, reached, facts))).filter(|(_, names)| *names > 0)
    }

    /// The directories in what `profile` may write to that it may not write to since scripts of other profiles lie in them, each
    /// with the name and the profile of the first. In one that is named itself none may lie.
    pub(super) fn shared_directories(&self, reach: &Reach<'_>, profile: &str) -> Vec<(&Path, &str, &str)> {
        let mut all: Vec<(&Path, &str, &str)> = Vec::new();
        for Listed { name, profile, led, .. } in self.others(profile) {
            let Some(directory) = led.place.parent() else { continue };
            if reach.has(directory) && !reach.names(directory) && !all.iter().any(|(known, ..)| *known == directory) {
                all.push((directory, name, profile));
            }
        }
        all
    }

    /// And where jobs were by an earlier configuration: the front-end leaves its own there until it is started anew.
    pub(super) fn keep(&mut self, earlier: &Self) {
        let more: Vec<_> = earlier.runs.iter().filter(|runs| !self.runs.contains(runs)).cloned().collect();
        self.secret.extend(more.iter().cloned());
        self.runs.extend(more);
        // Once another file has its name, nobody can tell what it was called.
        self.program = self.program.take().or_else(|| earlier.program.clone());
    }

    /// What decides about the agent, or is its program, and can be written to there; nothing if there is no such thing.
    pub(super) fn within(&self, reach: &Reach<'_>) -> Option<&Path> {
        self.program.iter().chain(&self.decisive).find(|file| reach.has(file)).map(PathBuf::as_path)
    }

    /// One secret file more.
    pub(super) fn add(&mut self, file: &Path) {
        self.secret.extend([place(file), file.to_owned()]);
        self.secret.sort();
        self.secret.dedup();
    }

    /// What the file system makes of the secret ones now; and those that do not exist, and so cannot be hidden. One that somebody
    /// else than root has led elsewhere is no place to hide, and no run goes on without it.
    ///
    /// # Errors
    /// Which cannot be found out about, and why.
    pub(super) fn secret(&self, facts: &dyn HostFacts) -> Result<(Found, Vec<Unmade>), String> {
        let (mut found, mut missing) = (Found::default(), Vec::new());
        for own in &self.secret {
            match facts.place(own) {
                Ok(led) => found.take(led),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push((own, is_plainly_missing(&error)));
                }
                Err(error) => return Err(unknown(own, &error)),
            }
        }
        let mut hidden = std::mem::take(&mut found.kept);
        outermost(&mut hidden);
        for place in hidden.clone() {
            hidden.extend(facts.elsewhere(&place).map_err(|error| unknown(&place, &error))?.all().cloned());
        }
        outermost(&mut hidden);
        let unmade = unmade::outside(&missing, &hidden, facts)?;
        Ok((Found { hidden, ..found }, unmade))
    }

    /// The public ones, this program among them, that are there now; and those that are not, where `hidden` is hidden. What a
    /// link of somebody else's leads to is theirs.
    ///
    /// # Errors
    /// As [`Own::secret`].
    pub(super) fn public(&self, hidden: &[PathBuf], facts: &dyn HostFacts) -> Result<(Found, Vec<Unmade>), String> {
        let (mut found, mut missing) = (Found::default(), Vec::new());
        for file in &self.public {
            match facts.place(file) {
                Ok(led) => found.take(led),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    missing.push((file, is_plainly_missing(&error)));
                }
                Err(_) => {}
            }
        }
        self.program.iter().filter_map(|file| facts.place(file).ok()).for_each(|led| found.take(led));
        let others: Vec<_> = found.kept.iter().filter_map(|file| facts.elsewhere(file).ok()).collect();
        found.kept.extend(others.iter().flat_map(Elsewhere::all).cloned());
        Ok((found, unmade::outside(&missing, hidden, facts)?))
    }

    /// What is to be kept from those who may write there, so that they change no script of other profiles than this, no contract
    /// of one, and no link to either: whoever could would have the rights of those profiles.
    ///
    /// # Errors
    /// Which is listed there and does not exist, or has no contract, so that one could be made; or cannot be kept.
    pub(super) fn scripts_within(
        &self,
        reach: &Reach<'_>,
        profile: &str,
        facts: &dyn HostFacts,
    ) -> Result<Found, String> {
        let mut found = Found::default();
        for Listed { name, profile, led, contract } in self.others(profile) {
            let guards = |path: &Path| reach.guards(path, facts).map_err(|why| not_kept((name, profile), path, why));
            if reach.has(&led.place) {
                if facts.place(&led.place).is_err() {
                    let place = led.place.display();
                    return Err(format!(
                        "'{name}' of profile '{profile}' is to be {place}, where nothing is and it may put one"
                    ));
                }
                found.kept.extend(guards(&led.place)?);
            }
            // By whatever path, it is the same link.
            let links = led.passed.iter().chain(&contract.passed);
            let mut passed: Vec<PathBuf> = links.filter(|path| reach.has(path)).cloned().collect();
            if reach.has(&contract.place) {
                match facts.place(&contract.place) {
                    Ok(now) => {
                        found.kept.extend(guards(&now.place)?);
                        passed.extend(now.passed);
                    }
                    Err(_) if reach.passes_modes => return Err(no_contract(name, profile, &contract.place)),
                    Err(_) => {}
                }
            }
            for link in &passed {
                let guards = reach.guards_above(link, facts);
                found.kept.extend(guards.map_err(|why| not_kept((name, profile), link, why))?);
            }
            found.passed.extend(passed);
        }
        Ok(found)
    }

    /// A script of another profile than this, or its contract, that has another name (a hard link) by which it might be written
    /// to. One in a directory that cannot be written to does no harm there: many a program has several. Nobody whom modes keep
    /// away is asked about.
    pub(super) fn linked_script(&self, reach: &Reach<'_>, profile: &str, facts: &dyn HostFacts) -> Option<&Path> {
        if !reach.passes_modes || reach.writable().is_empty() {
            return None;
        }
        let mut files = self.others(profile).flat_map(|script| [&script.led.place, &script.contract.place]);
        let is_linked = |file: &&PathBuf| {
            let beside = file.parent().filter(|directory| !reach.has(directory));
            // One that cannot be looked at is not there for a script either.
            facts.other_names(file, beside).is_ok_and(|others| others > 0)
        };
        files.find(is_linked).map(PathBuf::as_path)
    }

    fn others(&self, profile: &str) -> impl Iterator<Item = &Listed> {
        self.scripts.iter().filter(move |script| script.profile != profile)
    }
}

/// Where a file is, or would be if it were made.
fn led(file: &Path, facts: &dyn HostFacts) -> Led {
    facts.place(file).unwrap_or_else(|_| Led::straight(file.to_owned()))
}

/// Where a script's contract is or would be, which is looked for beside the name by which the script is listed.
fn contract(script: &Path, facts: &dyn HostFacts) -> Led {
    let directory = script.parent().map(|directory| led(directory, facts).place).unwrap_or_default();
    let mut name = script.file_name().unwrap_or_default().to_owned();
    name.push(SIDECAR);
    led(&directory.join(name), facts)
}

/// What is replaced in a directory that can be written to is not covered any more; and what can be written to as a whole cannot
/// be shown read-only.
fn not_kept((name, profile): (&str, &str), path: &Path, why: Open) -> String {
    match why {
        Open::Named(directory) => format!(
            "'{name}' of profile '{profile}' lies ({}), as {} itself is in its 'writable': keep scripts in a directory of their \
             own, elsewhere or below that one, or name other directories",
            path.display(),
            directory.display()
        ),
        Open::Unknown(error) => format!("'{name}' of profile '{profile}' lies: {error}"),
    }
}

/// Whoever makes the contract decides what arguments another profile's script gets.
fn no_contract(name: &str, profile: &str, place: &Path) -> String {
    let place = place.display();
    format!(
        "'{name}' of profile '{profile}' has no contract, and it may put one there: make {place} (a file with '{{}}' says \
         nothing), or keep that script elsewhere"
    )
}

impl Found {
    fn take(&mut self, led: Led) {
        self.kept.push(led.place);
        self.passed.extend(led.passed);
    }

    /// Both together; what is hidden needs no keeping.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.kept.extend(others.kept);
        self.kept.retain(|file| !self.hidden.iter().any(|hidden| file.starts_with(hidden)));
        self.passed.extend(others.passed);
        for paths in [&mut self.kept, &mut self.passed] {
            paths.sort();
            paths.dedup();
        }
        self
    }
}

/// Without what lies in another one of them.
fn outermost(paths: &mut Vec<PathBuf>) {
    paths.sort();
    paths.dedup_by(|later, earlier| later.starts_with(earlier));
}

/// Where a pairing waits to be put in place, if that is not in the key's directory because others have files there.
fn journal_alone(settings: &Settings) -> Option<PathBuf> {
    Some(pairing_journal(&settings.key)).filter(|journal| place(journal) == *journal)
}

/// Whoever writes the CA's certificate decides whom the agent trusts; the hook, what it allows.
fn public(settings: &Settings) -> Vec<PathBuf> {
    let hook = settings.auth_hook.iter().map(|hook| hook.to_path_buf());
    [settings.cert.to_path_buf(), settings.ca.to_path_buf()].into_iter().chain(hook).collect()
}

/// The directory of a file, unless others have theirs there.
fn place(file: &Path) -> PathBuf {
    match file.parent() {
        Some(directory) if !SHARED.iter().any(|shared| directory == Path::new(shared)) => directory.to_owned(),
        _ => file.to_owned(),
    }
}
