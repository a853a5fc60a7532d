//! Whether what the product is made of is allowed: `cargo deny` over `deny.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::Run;
use crate::{Outcome, place};

/// Fails, with the command that helps, if `cargo deny` is not there.
pub(crate) fn installed() -> Outcome {
    let asked = Run::cargo().args(["deny", "--version"]).text();
    asked.map(drop).map_err(|_| "cargo-deny is missing: cargo install --locked cargo-deny".to_owned())
}

/// Bans, licences and sources always; advisories where their database is on this machine.
///
/// The database is never fetched here: `check` needs no network beyond crates.io, and gives the same answer twice.
pub(crate) fn all() -> Outcome {
    let deny = || Run::cargo().args(["deny", "--locked"]).dir(&place::repository());
    deny().args(["check", "bans", "licenses", "sources"]).go()?;
    if cargo_home().is_some_and(|home| has_database(&home.join("advisory-dbs"))) {
        return deny().args(["--offline", "check", "advisories"]).go();
    }
    println!("advisories were NOT checked: there is no database on this machine.");
    println!("To check them, where github.com can be reached: cargo deny fetch db && cargo deny check advisories");
    Ok(())
}

fn cargo_home() -> Option<PathBuf> {
    let named = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
}

/// Whether `folder` holds a checkout of an advisory database: a fetch that failed leaves an empty one.
fn has_database(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| entry.path().join("crates").is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_never_fetched_has_no_database() {
        assert!(!has_database(Path::new("/nowhere/at/all")));
        assert!(!has_database(Path::new(env!("CARGO_MANIFEST_DIR"))));
    }
}
