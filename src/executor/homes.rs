//! What a root executor makes of the agent's own places before a script could: what is there can be hidden, and while something is
//! not, scripts that could make it are refused (`unmade`).
//!
//! A place that the configuration says nothing about is read at every reload like any other: a script that made
//! `/var/lib/ctrl-exec-agent` would fill in whom the agent trusts next time. Nobody who puts his files elsewhere thinks of it, and
//! so it is made here, as an installation makes it. What the configuration does name is the operator's to make.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::host::{HostFacts, Person};
use crate::conf::Placed;
use crate::conf::agent::Settings;
use crate::sys::file;
use crate::sys::user::{Gid, Uid};

/// Everybody may look for a list of revoked serials there.
const CONFIGURATION: u32 = 0o755;
/// The agent's alone.
const STATE: u32 = 0o750;

/// What is made if it is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Homes(Vec<Home>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Home {
    /// A directory of root's, for everybody to read.
    Configuration(PathBuf),
    /// One of the agent's, perhaps with another one in it.
    State { place: PathBuf, within: Option<PathBuf>, owner: (Uid, Gid) },
    /// An empty file of root's among files of others, where an interrupted pairing would be.
    Journal(PathBuf),
}

impl Homes {
    /// Those of a configuration: of the places that it does not name, the directories; and `journal` if that is no place in a
    /// directory of the agent's own.
    pub(super) fn of(settings: &Settings, agent: Option<&Person>, journal: Option<PathBuf>) -> Self {
        let unnamed = |key: &Placed<PathBuf>| match key.line() {
            None => key.parent().map(Path::to_owned),
            Some(_) => None,
        };
        let state = [&settings.trusted_dispatchers_path, &settings.cert_staging_path, &settings.async_runs_dir];
        let state = state.into_iter().find_map(unnamed).zip(agent);
        let within = settings.async_runs_dir.line().is_none().then(|| settings.async_runs_dir.to_path_buf());
        let state = state.map(|(place, agent)| Home::State { place, within, owner: (agent.uid, agent.gid) });
        let configuration = unnamed(&settings.revoked_serials).map(Home::Configuration);
        Self(configuration.into_iter().chain(state).chain(journal.map(Home::Journal)).collect())
    }

    /// Makes what is not there, and says what that was. Where it cannot be made, as on a read-only file system, or not without
    /// somebody else having a hand in it, all stays as it is: scripts that could make it are refused, and hear why.
    pub(super) fn make(&self) -> Vec<&Path> {
        let made = |home: &&Home| {
            let there = home.place().symlink_metadata().is_ok();
            // Or what is given away here might be something else by then.
            let closed = home.place().parent().is_some_and(|above| file::check_trusted_directory(above).is_ok());
            !there && closed && home.make().is_ok()
        };
        self.0.iter().filter(made).map(Home::place).collect()
    }
}

impl Homes {
    /// Whether [`Homes::make`] would make this, or what it lies in.
    pub(super) fn would_have(&self, place: &Path, facts: &dyn HostFacts) -> bool {
        // It looks at everything on the way, and says first what it finds.
        let closed = |home: &Path| matches!(facts.resolve_trusted(home, None), Err(error) if error.is_not_found());
        let lies = |home: &Path| home.parent().is_some_and(|above| facts.place(above).is_ok());
        self.0.iter().map(Home::place).any(|home| place.starts_with(home) && closed(home) && lies(home))
    }
}

impl Home {
    fn place(&self) -> &Path {
        match self {
            Self::Configuration(place) | Self::State { place, .. } | Self::Journal(place) => place,
        }
    }

    fn make(&self) -> io::Result<()> {
        match self {
            Self::Configuration(place) => directory(place, CONFIGURATION),
            Self::State { place, within, owner: (uid, gid) } => {
                DirBuilder::new().mode(0o700).create(place)?;
                // From the inside out: nobody else comes to what is in it before it is as it is to be.
                if let Some(within) = within {
                    directory(within, STATE)?;
                    file::give(within, *uid, *gid).map_err(io::Error::other)?;
                }
                fs::set_permissions(place, Permissions::from_mode(STATE))?;
                file::give(place, *uid, *gid).map_err(io::Error::other)
            }
            Self::Journal(place) => OpenOptions::new().write(true).create_new(true).mode(0o600).open(place).map(drop),
        }
    }
}

/// One with exactly this mode.
fn directory(place: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(place)?;
    fs::set_permissions(place, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::conf::{Root, Source};

    const NAMED: &str = "revoked_serials = /srv/r\ntrusted_dispatchers_path = /srv/t\ncert_staging_path = /srv/s\n\
                         async_runs_dir = /srv/runs\n";

    fn homes(root: &Path, settings: &str, journal: Option<PathBuf>) -> Homes {
        let text = format!("port = 1\ncert = /srv/c\nkey = /srv/k\nca = /srv/a\n{settings}");
        let (settings, _) =
            Settings::parse(&Source::new("/srv/agent.conf", text), &Root::new(Some(root.into()))).unwrap();
        let (uid, gid) = (Uid::from_raw(1), Gid::from_raw(2));
        Homes::of(&settings, Some(&Person { uid, gid, groups: Vec::new(), login: None }), journal)
    }

    /// A root that nobody else has a hand in.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir_in("/var/lib").unwrap();
        for place in ["etc", "var", "var/lib"] {
            fs::create_dir(root.path().join(place)).unwrap();
        }
        root
    }

    fn facts(path: &Path) -> (u32, u32, u32) {
        let facts = fs::symlink_metadata(path).unwrap();
        (facts.mode() & 0o7777, facts.uid(), facts.gid())
    }

    #[test]
    fn a_place_that_the_configuration_does_not_name_is_made_as_an_installation_makes_it() {
        let root = root();
        let (etc, state) = (root.path().join("etc/ctrl-exec-agent"), root.path().join("var/lib/ctrl-exec-agent"));
        let journal = root.path().join("etc/agent.key.pairing");
        let homes = homes(root.path(), "", Some(journal.clone()));
        assert_eq!(homes.make(), [&*etc, &*state, &*journal]);
        assert_eq!(facts(&etc), (0o755, 0, 0));
        assert_eq!((facts(&state), facts(&state.join("runs"))), ((0o750, 1, 2), (0o750, 1, 2)));
        assert_eq!((facts(&journal), fs::read(&journal).unwrap()), ((0o600, 0, 0), Vec::new()));
        // And left as it is from then on.
        fs::set_permissions(&etc, Permissions::from_mode(0o700)).unwrap();
        assert_eq!((homes.make(), facts(&etc).0), (vec![], 0o700));
    }

    #[test]
    fn what_the_configuration_does_name_is_the_operators_to_make() {
        let root = root();
        assert_eq!(homes(root.path(), NAMED, None).make(), [] as [&Path; 0]);
        // One that it leaves out is enough.
        for (left_out, place) in
            [(0, "etc/ctrl-exec-agent"), (1, "var/lib/ctrl-exec-agent"), (3, "var/lib/ctrl-exec-agent")]
        {
            let lines: Vec<&str> =
                NAMED.lines().enumerate().filter(|(at, _)| *at != left_out).map(|(_, line)| line).collect();
            let place = root.path().join(place);
            assert_eq!(homes(root.path(), &format!("{}\n", lines.join("\n")), None).make(), [&*place]);
            assert_eq!(place.join("runs").exists(), left_out == 3);
            fs::remove_dir_all(place).unwrap();
        }
    }

    #[test]
    fn nothing_is_made_where_somebody_else_could_put_something_else_in_its_place_or_has() {
        let root = root();
        fs::set_permissions(root.path().join("etc"), Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/nowhere", root.path().join("var/lib/ctrl-exec-agent")).unwrap();
        assert_eq!(homes(root.path(), "", None).make(), [] as [&Path; 0]);
        fs::remove_dir_all(root.path().join("etc")).unwrap();
        assert_eq!(homes(root.path(), "", None).make(), [] as [&Path; 0], "nor what it would lie in");
    }
}
