//! Where things are: the repository, the cache, the host's names for its architecture.

use std::path::{Path, PathBuf};

use crate::Outcome;

/// The top folder of the repository. Asked of the environment first, so that a moved or copied worktree whose
/// `target/` came along still finds itself.
pub(crate) fn repository() -> PathBuf {
    let own =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map_or_else(|| own.clone(), Path::to_path_buf)
}

/// The folder that outlives `target/`: `$XDG_CACHE_HOME/ctrl-exec`, else `~/.cache/ctrl-exec`.
pub(crate) fn cache() -> Outcome<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|base| base.join("ctrl-exec"))
        .ok_or_else(|| "no place for the cache: set HOME or XDG_CACHE_HOME to an absolute path".to_owned())
}

/// The target that ships, for this machine's architecture.
pub(crate) fn musl_target() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}
