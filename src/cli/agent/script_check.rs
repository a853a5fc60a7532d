//! What `self-check` says of the scripts: their files, and the contracts about their arguments.

use crate::agent::sidecar::{Sidecars, Terms};
use crate::audit::Logger;
use crate::cli::out;
use crate::conf::agent::{Loaded, Schema};
use crate::conf::scripts::Entry;
use crate::sys::file;

/// Whether every script can run.
pub(super) fn scripts(loaded: &Loaded) -> bool {
    let mut good = true;
    for entry in loaded.allowlist.iter() {
        let mark = if !entry.is_within(loaded.settings.script_dirs.as_deref()) {
            "NOT IN script_dirs"
        } else if !file::is_executable(entry.path()) {
            "NOT EXECUTABLE"
        } else if changed(entry) {
            "CHANGED: not the file that sha256= pins"
        } else {
            "ok"
        };
        good &= mark == "ok";
        let (name, path, profile) = (entry.name(), entry.path().display(), entry.profile());
        out::line(format!("  Script '{name}': {path}  (profile: {profile}) [{mark}]"));
    }
    good
}

/// Whether the file is another than the pinned one. What this account may not read, only the executor can compare.
fn changed(entry: &Entry) -> bool {
    let differs = |pinned: &[u8; 32]| file::digest(entry.path()).is_ok_and(|(_, found)| found != *pinned);
    entry.sha256().is_some_and(differs)
}

/// Whether every contract that is there can be used; and which scripts have none, which is no fault.
pub(super) fn contracts(loaded: &Loaded, log: &Logger) -> bool {
    let sidecars = Sidecars::load(&loaded.allowlist, log);
    let enforced = loaded.settings.schema == Schema::Enforce;
    let (mut good, mut kept, mut without) = (true, 0, Vec::new());
    for entry in loaded.allowlist.iter() {
        match sidecars.get(entry.name()).map(|sidecar| &sidecar.contract) {
            Some(Terms::Contract(_)) => kept += 1,
            Some(Terms::Broken(reason)) => {
                let cost = if enforced { "every call is refused" } else { "and nothing is enforced" };
                out::line(format!("  Contract of '{}': BROKEN, {cost}: {reason}", entry.name()));
                good = false;
            }
            Some(Terms::Open) | None => without.push(entry.name().to_string()),
        }
    }
    if kept > 0 || !without.is_empty() {
        let verb = if enforced { "enforced" } else { "advertised, not enforced" };
        let rest = if without.is_empty() { String::new() } else { format!("; without one: {}", without.join(", ")) };
        out::line(format!("  Argument contracts: {kept} {verb}{rest}"));
    }
    good || !enforced
}
