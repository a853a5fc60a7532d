//! Options that stand anywhere on the agent's command line.

use std::path::{Path, PathBuf};

use crate::agent::snapshot::Places;
use crate::conf::Root;
use crate::conf::agent::Settings;

/// Options of every verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Globals {
    /// Configuration file [default: /etc/ctrl-exec-agent/agent.conf]
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Allowlist [default: /etc/ctrl-exec-agent/scripts.conf]
    #[arg(long, global = true, value_name = "PATH")]
    pub allowlist: Option<PathBuf>,
    /// Directory that stands for / in every default path
    #[arg(long, global = true, value_name = "DIR", env = Root::ENV)]
    pub root: Option<PathBuf>,
    /// The dispatcher to pair with; for 'explain', the id of the one that asks
    #[arg(long, global = true, value_name = "HOST")]
    pub dispatcher: Option<String>,
    /// The dispatcher's pairing port
    #[arg(long, global = true, value_name = "N")]
    pub port: Option<u16>,
}

impl Globals {
    /// The prefix of default paths.
    #[must_use]
    pub fn root(&self) -> Root {
        Root::new(self.root.as_deref().map(from_here))
    }

    /// `agent.conf`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        from_here(&self.named_config())
    }

    /// The same, as it is named: a relative path, if it was given as one.
    pub(super) fn named_config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| Root::new(self.root.clone()).path(Settings::DEFAULT_PATH))
    }

    /// `scripts.conf`.
    #[must_use]
    pub fn allowlist(&self) -> PathBuf {
        self.allowlist.as_deref().map_or_else(|| self.root().path(Settings::DEFAULT_SCRIPTS_PATH), from_here)
    }

    /// Where the two files are.
    #[must_use]
    pub fn places(&self) -> Places {
        Places { config: self.config(), allowlist: self.allowlist(), root: self.root() }
    }
}

/// A path that means the same wherever a process is: a root executor reads no file that it finds by where it was started.
/// Where the current directory is gone, it stays as it is, and so fails with its name.
fn from_here(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
