//! What `self-check` says of the scripts: their files, and the contracts about their arguments.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{kernel_check, remedy};
use crate::agent::digests;
use crate::agent::orders::Kinship;
use crate::agent::sidecar::{Sidecars, Terms};
use crate::agent::snapshot::Places;
use crate::audit::Logger;
use crate::cli::out;
use crate::conf::agent::{Loaded, Schema, Settings};
use crate::conf::scripts::Entry;
use crate::executor::{self, OnDisk, Policy};
use crate::sys::{file, user};
use crate::wire::causes;

/// What is known of each listed script, in the list's order.
pub(super) struct Scripts {
    /// The words of each, and whether they are good ones.
    marks: Vec<(bool, String)>,
    /// Profiles under which none of their scripts starts, though the scripts are in order, each with the first reason.
    hindered: Vec<(String, String)>,
}

/// What was told of the executor before.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// It refuses the configuration.
    pub(super) refused: bool,
    /// The profiles that it cannot apply here.
    pub(super) lacking: Vec<String>,
}

/// What the executor says of a script: see [`executor::starts`].
type Word = Option<Result<(), String>>;

impl Scripts {
    /// Looks. With root's rights it is the executor that is asked; else this process has the rights that scripts will have, or
    /// cannot say what they will find.
    ///
    /// **Invariant:** this process has one thread, as [`executor::starts`] wants it.
    pub(super) fn look(kinship: &Kinship, loaded: &Loaded, places: &Places, mut told: Told) -> Self {
        let asked = kinship.applies_profiles() && user::is_root();
        let policy = asked.then(|| kernel_check::policy(kinship, places).ok()).flatten();
        told.refused |= asked && policy.is_none();
        let policy = policy.map(Policy::whatever_the_arguments);
        let offer = kernel_check::offer(kinship);
        let word = |entry: &Entry| executor::starts(entry.name(), policy.as_ref()?, &OnDisk, &offer);
        let words: Vec<(&Entry, Word)> = loaded.allowlist.iter().map(|entry| (entry, word(entry))).collect();
        let mark = |(entry, word): &(&Entry, Word)| mark(entry, word.as_ref(), kinship, loaded, &told);
        let marks = words.iter().map(mark).collect();
        let mut hindered = hindered(&words, loaded);
        hindered.retain(|(profile, _)| !told.lacking.contains(profile));
        Self { marks, hindered }
    }

    /// Whether every profile with a script has one that starts under it, unless it is the scripts that do not.
    pub(super) fn hindered(&self) -> bool {
        for (profile, why) in &self.hindered {
            out::line(format!("  Profile '{profile}': none of its scripts can start: {why}"));
        }
        !self.hindered.is_empty()
    }

    /// Says it; whether every script can run.
    pub(super) fn tell(&self, kinship: &Kinship, loaded: &Loaded) -> bool {
        for (entry, (_, mark)) in loaded.allowlist.iter().zip(&self.marks) {
            let (name, path, profile) = (entry.name(), entry.path().display(), entry.profile());
            out::line(format!("  Script '{name}': {path}  (profile: {profile}) [{mark}]"));
        }
        // A root executor tells of all that is root's alone. Another account than the agent's cannot say what that may read.
        let told = kinship.applies_profiles() && *loaded.settings.trusted_paths;
        if !told && remedy::is_agent(&loaded.settings) {
            undigested(loaded);
        }
        self.marks.iter().all(|(good, _)| *good)
    }
}

fn mark(
    entry: &Entry,
    word: Option<&Result<(), String>>,
    kinship: &Kinship,
    loaded: &Loaded,
    told: &Told,
) -> (bool, String) {
    let settings = &loaded.settings;
    let bad = |mark: &str| (false, mark.to_owned());
    if word == Some(&Ok(())) {
        (true, "ok".to_owned())
    } else if !entry.is_within(settings.script_dirs.as_deref()) {
        bad("NOT IN script_dirs")
    } else if !file::is_executable(entry.path()) {
        if closed(entry, kinship) { (true, UNSEEN.to_owned()) } else { bad("NOT EXECUTABLE") }
    } else if let Some(why) = unstartable(entry, settings) {
        (false, format!("CANNOT START: {why}"))
    } else if let Some(why) = executor::doubt(entry, settings, kinship.applies_profiles()) {
        (false, format!("NOT TRUSTED: {}", causes::on_one_line(&why)))
    } else if changed(entry) {
        bad("CHANGED: not the file that sha256= pins")
    } else if told.refused {
        bad("REFUSED: with this configuration the executor runs none, as told above")
    } else if let Some(Err(why)) = word {
        let told = told.lacking.iter().any(|profile| profile == entry.profile().as_str());
        let why = if told { "its profile is refused here, as told above" } else { why };
        (false, format!("CANNOT START: {why}"))
    } else {
        (true, "ok".to_owned())
    }
}

/// Says which scripts run without that callers can see when they were changed, which is no fault.
fn undigested(loaded: &Loaded) {
    let closed = |entry: &&Entry| !digests::is_taken_of(entry.path());
    let names: Vec<&str> = loaded.allowlist.iter().filter(closed).map(|entry| entry.name().as_str()).collect();
    if !names.is_empty() {
        let names = names.join(", ");
        out::line(format!("  No sha256 in discovery, as the agent's account cannot read the file: {names}"));
    }
}

/// Of a script that is for others alone.
const UNSEEN: &str = "not for this user: only root can say whether it starts";

/// Whether this user may not execute what the scripts' accounts perhaps may.
fn closed(entry: &Entry, kinship: &Kinship) -> bool {
    let others = match std::fs::metadata(entry.path()) {
        Ok(facts) => facts.is_file() && facts.permissions().mode() & 0o111 != 0,
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    others && kinship.applies_profiles() && !user::is_root()
}

/// Every profile that has scripts which are in order, of which none starts.
fn hindered(words: &[(&Entry, Word)], loaded: &Loaded) -> Vec<(String, String)> {
    let name = |entry: &Entry| entry.profile().to_string();
    let fit = |entry: &Entry| executor::is_fit(entry.path(), directory(entry, &loaded.settings));
    let failed = words.iter().filter_map(|(entry, word)| Some((*entry, word.as_ref()?.as_ref().err()?)));
    let mut found: Vec<(String, String)> = Vec::new();
    for (entry, why) in failed.filter(|(entry, _)| fit(entry)) {
        let mut of_profile = words.iter().filter(|(other, _)| other.profile() == entry.profile());
        let none = of_profile.all(|(_, word)| matches!(word, Some(Err(_))));
        if none && found.iter().all(|(profile, _)| *profile != name(entry)) {
            found.push((name(entry), why.clone()));
        }
    }
    found
}

/// Why every run would end with exit status 127.
fn unstartable(entry: &Entry, settings: &Settings) -> Option<String> {
    executor::unstartable(entry.path(), directory(entry, settings))
}

fn directory<'a>(entry: &Entry, settings: &'a Settings) -> &'a Path {
    settings.profiles.get(entry.profile()).map_or(Path::new("/"), |profile| &profile.working_directory)
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
