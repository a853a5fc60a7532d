//! The one prefix under which every default path lies.

use std::path::{Path, PathBuf};

/// The directory that stands for `/` in every path the program knows by itself: `--root DIR` or the environment
/// variable [`Root::ENV`].
///
/// Paths that are written in a configuration file are literal and never go through here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The environment variable that names the prefix where no `--root` was given.
    pub const ENV: &'static str = "CTRL_EXEC_ROOT";

    /// A root at `prefix`; without one (or with an empty one), the file system's own.
    #[must_use]
    pub fn new(prefix: Option<PathBuf>) -> Self {
        Self(prefix.filter(|prefix| !prefix.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/")))
    }

    /// `absolute` below the prefix: `/etc/x` under the prefix `/srv` is `/srv/etc/x`.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.0.join(absolute.trim_start_matches('/'))
    }

    /// The prefix itself; `/` when none was given.
    #[must_use]
    pub fn prefix(&self) -> &Path {
        &self.0
    }
}

impl Default for Root {
    fn default() -> Self {
        Self::new(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_prefix_paths_are_literal() {
        let root = Root::new(None);
        assert_eq!(root.path("/etc/ctrl-exec/ctrl-exec.conf"), Path::new("/etc/ctrl-exec/ctrl-exec.conf"));
        assert_eq!(root.prefix(), Path::new("/"));
        assert_eq!(Root::new(Some(PathBuf::new())), root);
    }

    #[test]
    fn a_prefix_holds_every_absolute_path() {
        let root = Root::new(Some("/tmp/site".into()));
        assert_eq!(root.path("/etc/x"), Path::new("/tmp/site/etc/x"));
        assert_eq!(root.path("//etc/x"), Path::new("/tmp/site/etc/x"));
        assert_eq!(root.prefix(), Path::new("/tmp/site"));
    }
}
