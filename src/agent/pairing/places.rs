//! Where pairing puts things, and whether it can.

use std::path::{Path, PathBuf};

use crate::conf::agent::Settings;
use crate::conf::{Account as Name, Root, Source};
use crate::sys::file::{self, FileError};
use crate::sys::user::{self, Account, Gid, Uid};

/// Largest configuration file, in bytes.
const FILE: usize = 1024 * 1024;
/// The agent's port where the configuration names none.
const AGENT_PORT: u16 = 7443;
/// The dispatcher's pairing port where the configuration names none.
const PAIRING_PORT: u16 = 7444;

/// The files that a pairing writes, and who they are for.
#[derive(Clone, Debug)]
pub struct Places {
    /// The agent's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The trust map.
    pub trust: PathBuf,
    /// Where a renewed certificate waits; one that waits while the host is paired anew is of no use any more.
    pub staged: PathBuf,
    /// The account that the agent runs as.
    pub account: Name,
    /// The port to report.
    pub agent_port: u16,
    /// The dispatcher's port.
    pub pairing_port: u16,
}

/// A place that cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Not there.
    #[error("Cert directory '{}' does not exist - has the agent been installed?", .0.display())]
    Missing(PathBuf),
    /// Not ours.
    #[error("Cannot write to '{}' - re-run as root or with sudo", .0.display())]
    ReadOnly(PathBuf),
    /// The directory of the trust map cannot be made.
    #[error("the directory of the trust map cannot be made")]
    State(#[source] FileError),
}

impl Places {
    /// From `agent.conf`. Where that cannot be read or is wrong: the defaults below `root`, and why.
    #[must_use]
    pub fn load(config: &Path, root: &Root) -> (Self, Option<String>) {
        let bytes = match file::read_bounded(config, FILE) {
            Ok(bytes) => bytes,
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                return (Self::defaults(root), Some(format!("{error}{cause}; the default paths are used")));
            }
        };
        match Settings::parse(&Source::new(config, bytes), root) {
            Ok((settings, _)) => (Self::of(&settings), None),
            Err(errors) => (Self::defaults(root), Some(format!("{errors}\nThe default paths are used."))),
        }
    }

    fn of(settings: &Settings) -> Self {
        Self {
            cert: settings.cert.to_path_buf(),
            key: settings.key.to_path_buf(),
            ca: settings.ca.to_path_buf(),
            trust: settings.trusted_dispatchers_path.to_path_buf(),
            staged: settings.cert_staging_path.to_path_buf(),
            account: settings.user.clone().into_inner(),
            agent_port: Some(*settings.port).filter(|port| *port != 0).unwrap_or(AGENT_PORT),
            pairing_port: Some(settings.pairing_port).filter(|port| *port != 0).unwrap_or(PAIRING_PORT),
        }
    }

    /// The places of an agent without a configuration.
    #[must_use]
    pub fn defaults(root: &Root) -> Self {
        let conf = |name: &str| root.path("/etc/ctrl-exec-agent").join(name);
        let state = |name: &str| root.path("/var/lib/ctrl-exec-agent").join(name);
        Self {
            cert: conf("agent.crt"),
            key: conf("agent.key"),
            ca: conf("ca.crt"),
            trust: state("ctrl-exec-dispatchers"),
            staged: state("agent.crt.staged"),
            account: Name::Name("ctrl-exec-agent".to_owned()),
            agent_port: AGENT_PORT,
            pairing_port: PAIRING_PORT,
        }
    }

    /// Whether everything can be written, before anything is sent to anyone.
    pub fn check(&self) -> Result<(), PlaceError> {
        for path in [&self.cert, &self.key, &self.ca] {
            let directory = path.parent().unwrap_or(Path::new("/"));
            if !directory.is_dir() {
                return Err(PlaceError::Missing(directory.to_owned()));
            }
            if !file::is_writable_dir(directory) {
                return Err(PlaceError::ReadOnly(directory.to_owned()));
            }
        }
        let state = self.trust.parent().unwrap_or(Path::new("/"));
        if !state.is_dir() {
            file::create_dir(state, 0o750).map_err(PlaceError::State)?;
            if let Some((uid, gid)) = self.owner().ok().flatten() {
                // The agent itself keeps its state here.
                file::give(state, uid, gid).map_err(PlaceError::State)?;
            }
        }
        if file::is_writable_dir(state) { Ok(()) } else { Err(PlaceError::ReadOnly(state.to_owned())) }
    }

    /// User and group of the agent's account, for root to give files to; nothing for anybody else, whose files stay
    /// their own. `Err`: there is no such account.
    pub fn owner(&self) -> Result<Option<(Uid, Gid)>, String> {
        if !user::is_root() {
            return Ok(None);
        }
        match &self.account {
            Name::Id(id) => Ok(Some((Uid::from_raw(*id), Gid::from_raw(*id)))),
            Name::Name(name) => match Account::by_name(name) {
                Ok(Some(account)) => Ok(Some((account.uid(), account.gid()))),
                Ok(None) => Err(format!(
                    "there is no user '{name}': the agent's files belong to root's group, and an agent that runs as \
                     that user will not be able to read its key"
                )),
                Err(error) => Err(format!("the user '{name}' cannot be looked up ({error})")),
            },
        }
    }
}
