//! Options that stand anywhere on the dispatcher's command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::cli::out;
use crate::conf::Root;
use crate::conf::dispatcher::Settings;
use crate::dispatcher::site::{Site, SiteError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::file::{self, FileError};
use crate::sys::user;

/// Options of every verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Configuration file [default: /etc/ctrl-exec/ctrl-exec.conf]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Directory that stands for / in every default path
    #[arg(long, global = true, value_name = "DIR", env = Root::ENV)]
    pub root: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Port of agents that are registered with the default port; of the listener in pairing-mode
    #[arg(long, global = true, value_name = "N")]
    pub port: Option<u16>,
    /// Prove keys anew to every agent: neither use nor keep TLS sessions of other calls
    #[arg(long, global = true)]
    pub no_resume: bool,
    /// Name for hooks and scripts; a claim, not an identity
    #[arg(long, global = true, value_name = "S", env = Self::USERNAME, default_value = "", hide_env_values = true)]
    pub username: String,
    /// Token for hooks and scripts; better given in the environment, where other users cannot see it
    #[arg(long, global = true, value_name = "S", env = Self::TOKEN, default_value = "", hide_env_values = true)]
    pub token: String,
}

impl Globals {
    /// The environment's word for `--username`.
    pub const USERNAME: &str = "USER";
    /// The environment's word for `--token`.
    pub const TOKEN: &str = "ENVEXEC_TOKEN";

    /// The prefix of default paths.
    #[must_use]
    pub fn root(&self) -> Root {
        Root::new(self.root.clone())
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.root().path(Settings::DEFAULT_PATH))
    }

    /// The directory in which this user's TLS sessions are kept from call to call. It lies where a restart of the host
    /// empties it.
    #[must_use]
    pub fn sessions(&self) -> Option<PathBuf> {
        if self.no_resume {
            return None;
        }
        let root = self.root();
        let system = || root.path("/run/ctrl-exec-sessions");
        if root != Root::default() {
            return Some(system());
        }
        let login = std::env::var_os("XDG_RUNTIME_DIR").and_then(of_the_login);
        login.map(|dir| dir.join("ctrl-exec")).or_else(|| user::is_root().then(system))
    }

    /// Loads the configuration; warnings go to standard error.
    pub fn site(&self) -> Result<Site, Failure> {
        let (site, warnings) = Site::load(&self.config(), &self.root()).map_err(|error| match error {
            absent if absent.file().is_some_and(FileError::is_not_found) => self.no_configuration(absent),
            other => failed(other),
        })?;
        if !warnings.is_empty() {
            out::error(warnings.to_string());
        }
        Ok(site)
    }

    /// The three lines that a configuration must have.
    fn no_configuration(&self, error: SiteError) -> Failure {
        let file = |name: &str| self.root().path("/etc/ctrl-exec").join(name).display().to_string();
        let (cert, key, ca) = (file("dispatcher.crt"), file("dispatcher.key"), file("ca.crt"));
        Failure::new(Exit::Config, error).hint(format!(
            "write it (or name another with --config); the lines it must have:\n    cert = {cert}\n    key = {key}\n    ca = \
             {ca}"
        ))
    }
}

/// How a process ends that cannot use its site.
#[must_use]
pub fn failed(error: SiteError) -> Failure {
    let (denied, absent) =
        error.file().map_or((false, false), |file| (file.is_permission_denied(), file.is_not_found()));
    if denied {
        let hint = "run it as root, with sudo, or as a member of the group ctrl-exec";
        Failure::new(Exit::Permission, error).hint(hint)
    } else if absent {
        let hint = "'ctrl-exec check-config' shows what is missing and how to make it";
        Failure::new(Exit::Config, error).hint(hint)
    } else {
        Failure::new(Exit::Config, error)
    }
}

/// The directory that a login has named, if it may be used. One that is not absolute counts as none (XDG Base Directory
/// Specification), and so does somebody else's.
fn of_the_login(value: OsString) -> Option<PathBuf> {
    Some(PathBuf::from(value)).filter(|dir| dir.is_absolute() && file::is_of_this_user(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_directory_counts_where_it_is_absolute_and_ones_own() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_the_login(dir.path().into()).as_deref(), Some(dir.path()));
        // Both are there, and this user's.
        assert_eq!([".", "src"].map(|relative| of_the_login(relative.into())), [None, None]);
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
        assert_eq!([dir.path(), &dir.path().join("absent")].map(|dir| of_the_login(dir.into())), [None, None]);
    }
}
