//! What `self-check` says of the scripts: their files, and the contracts about their arguments.

use std::path::Path;

use crate::agent::orders::Kinship;
use crate::agent::sidecar::{Sidecars, Terms};
use crate::audit::Logger;
use crate::cli::out;
use crate::conf::agent::{Loaded, Schema, Settings};
use crate::conf::scripts::Entry;
use crate::executor;
use crate::sys::file;
use crate::wire::causes;

/// Whether every script can run.
pub(super) fn scripts(kinship: &Kinship, loaded: &Loaded) -> bool {
    let judged = kinship.applies_profiles() && *loaded.settings.trusted_paths;
    let mut good = true;
    for entry in loaded.allowlist.iter() {
        let mark = if !entry.is_within(loaded.settings.script_dirs.as_deref()) {
            "NOT IN script_dirs"
        } else if !file::is_executable(entry.path()) {
            "NOT EXECUTABLE"
        } else if let Some(why) = unstartable(entry, &loaded.settings) {
            &format!("CANNOT START: {why}")
        } else if changed(entry) {
            "CHANGED: not the file that sha256= pins"
        } else if let Some(why) = doubt(entry).filter(|_| judged) {
            &format!("NOT TRUSTED: {why}")
        } else {
            "ok"
        };
        good &= mark == "ok";
        let (name, path, profile) = (entry.name(), entry.path().display(), entry.profile());
        out::line(format!("  Script '{name}': {path}  (profile: {profile}) [{mark}]"));
    }
    good
}

/// Why every run would end with exit status 127.
fn unstartable(entry: &Entry, settings: &Settings) -> Option<String> {
    let profile = settings.profiles.get(entry.profile());
    executor::unstartable(entry.path(), profile.map_or(Path::new("/"), |profile| &profile.working_directory))
}

/// Why a root executor would not trust the file.
fn doubt(entry: &Entry) -> Option<String> {
    file::resolve_trusted(entry.path()).err().map(|error| causes::on_one_line(&error))
}

/// Whether the file is another than the pinned one. What this account may not read, only the executor can compare.
fn changed(entry: &Entry) -> bool {
    let differs = |pinned: &[u8; 32]| file::digest(entry.path()).is_ok_and(|(_, found)| found != *pinned);
    entry.sha256().is_some_and(differs)
}

/// Whether every sidecar can be read and every contract that is there used; and which scripts have none, which is no fault.
pub(super) fn contracts(loaded: &Loaded, log: &Logger) -> bool {
    let sidecars = Sidecars::load(&loaded.allowlist, log);
    let enforced = loaded.settings.schema == Schema::Enforce;
    let (mut good, mut read, mut kept, mut without) = (true, true, 0, Vec::new());
    for entry in loaded.allowlist.iter() {
        let sidecar = sidecars.get(entry.name());
        let contract = sidecar.map(|sidecar| &sidecar.contract);
        if let Some(reason) = sidecar.and_then(|sidecar| sidecar.skipped.as_ref()) {
            read = false;
            // Of one that was evidently meant as a contract, its line says what that comes to.
            if !matches!(contract, Some(Terms::Broken(_))) {
                out::line(format!("  Sidecar of '{}': NOT READ, it counts as absent: {reason}", entry.name()));
            }
        }
        match contract {
            Some(Terms::Contract(contract)) => {
                kept += 1;
                if let Some(doubt) = contract.doubt() {
                    out::line(format!("  Contract of '{}': {doubt}", entry.name()));
                    good = false;
                }
            }
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
    read && (good || !enforced)
}
