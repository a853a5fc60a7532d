//! `self-check`: what serving would find, and what needs hands.

use super::{Globals, pairing_status};
use crate::agent::snapshot::{self, SnapshotError};
use crate::audit::{Ident, Logger};
use crate::cli::out;
use crate::conf::agent::Loaded;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::file;

/// Checks; 1 if serving would fail, a script cannot be executed, or nobody is trusted.
pub fn run(globals: &Globals) -> Result<Exit, Failure> {
    out::line("Checking config...");
    let loaded = snapshot::configuration(&globals.places()).map_err(|error| broken(&error))?;
    if !loaded.warnings.is_empty() {
        out::error(loaded.warnings.to_string());
    }
    out::line(format!("  Config OK (port {})", *loaded.settings.port));
    out::line(format!("  Allowlist OK ({} scripts)", loaded.allowlist.len()));
    let mut good = certificates(globals, &loaded);
    good &= trust(&loaded);
    good &= executor(&loaded);
    good &= hook(&loaded);
    good &= scripts(&loaded);
    out::line("Self-check complete.");
    Ok(if good { Exit::Success } else { Exit::Failed })
}

fn broken(error: &SnapshotError) -> Failure {
    Failure::new(Exit::Failed, format!("Config error: {error}"))
}

fn certificates(globals: &Globals, loaded: &Loaded) -> bool {
    match pairing_status::expiry(globals) {
        Ok(expiry) => out::line(format!("  Certs OK (expires {expiry})")),
        Err(reason) => {
            out::line(format!("  Certs: NOT paired - {reason}"));
            return false;
        }
    }
    if let Err(error) = snapshot::anchor(&loaded.settings) {
        out::line(format!("  CA: {}", Failure::new(Exit::Config, error)));
        return false;
    }
    true
}

fn trust(loaded: &Loaded) -> bool {
    let log = Logger::to_writer(Ident::Agent, Box::new(std::io::stderr()));
    match snapshot::trust(&loaded.settings, &log) {
        Ok(map) if map.is_empty() => {
            let path = loaded.settings.trusted_dispatchers_path.display();
            out::line(format!("  Trust: no trusted dispatchers in {path}: every request is denied"));
            false
        }
        Ok(map) => {
            out::line(format!("  Trust OK ({} dispatcher serials)", map.iter().count()));
            true
        }
        Err(error) => {
            out::line(format!("  Trust: {}", Failure::new(Exit::Config, error)));
            false
        }
    }
}

fn executor(loaded: &Loaded) -> bool {
    if loaded.settings.executor_socket.is_some() {
        out::line(format!("  Executor: {}", SnapshotError::ExecutorSocket));
        return false;
    }
    out::line("  Executor: private; scripts run with the agent's own rights");
    true
}

fn hook(loaded: &Loaded) -> bool {
    match &loaded.settings.auth_hook {
        Some(hook) if !file::is_executable(hook) => {
            out::line(format!("  Auth hook: {} is not executable", hook.display()));
            false
        }
        _ => true,
    }
}

fn scripts(loaded: &Loaded) -> bool {
    let mut good = true;
    for entry in loaded.allowlist.iter() {
        let executable = file::is_executable(entry.path());
        good &= executable;
        let mark = if executable { "ok" } else { "NOT EXECUTABLE" };
        let (name, path, profile) = (entry.name(), entry.path().display(), entry.profile());
        out::line(format!("  Script '{name}': {path}  (profile: {profile}) [{mark}]"));
    }
    good
}
