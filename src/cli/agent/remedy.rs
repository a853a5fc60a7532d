//! What to do about an agent's files that cannot be used.

use crate::agent::snapshot::{self, Places, SnapshotError};
use crate::conf::Account;
use crate::conf::agent::Settings;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::file::FileError;
use crate::sys::user;
use crate::tls::files::CredentialError;

const PAIR: &str = "ctrl-exec-agent request-pairing --dispatcher HOST";

/// What to type next. Errors of the configuration carry their own advice, line by line.
#[must_use]
pub fn of(error: &SnapshotError, places: &Places) -> Option<String> {
    let conf = places.config.display();
    match error {
        SnapshotError::Unpaired(_) => Some(format!("pair this host first: {PAIR} ({conf})")),
        SnapshotError::Hook(path) => {
            let path = path.display();
            Some(format!("make it executable (chmod 755 {path}), or remove auth_hook from {conf}"))
        }
        SnapshotError::File(file) | SnapshotError::Credential(CredentialError::File(file)) => of_file(file, places),
        SnapshotError::Credential(
            CredentialError::Identity { .. } | CredentialError::Key { .. } | CredentialError::Anchor { .. },
        ) => Some(format!("put back the files that were made together, or pair this host again: {PAIR}")),
        SnapshotError::Credential(CredentialError::NotText(_)) => Some("put back a copy that is text".to_owned()),
        SnapshotError::Configuration(_) | SnapshotError::Tls(_) => None,
    }
}

/// A failure with what to do about it.
#[must_use]
pub fn advised(error: SnapshotError, places: &Places) -> Failure {
    let remedy = of(&error, places);
    let failure = Failure::new(Exit::Failed, error);
    match remedy {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

/// Whether all that is wrong is that this user may not look at a file.
#[must_use]
pub fn is_denied(error: &SnapshotError) -> bool {
    matches!(
        error,
        SnapshotError::File(file) | SnapshotError::Credential(CredentialError::File(file)) if file.is_permission_denied()
    )
}

/// A failure with what to do about it, whoever asks: another account than the agent's is to change nothing about a file that
/// it may not look at.
#[must_use]
pub fn told(error: SnapshotError, places: &Places) -> Failure {
    if is_denied(&error) { denied(error, places) } else { advised(error, places) }
}

/// Who can say what this process cannot.
#[must_use]
pub fn elsewhere(settings: &Settings) -> String {
    let agent = format!("as '{}', the agent's account", *settings.user);
    if user::is_root() { format!("check {agent}") } else { format!("check as root, with sudo, or {agent}") }
}

/// How a verb ends that may not look at a file. Another user might; where it is the agent who may not, no other will do.
#[must_use]
pub fn denied(error: SnapshotError, places: &Places) -> Failure {
    let settings = snapshot::settings(places).ok().map(|(settings, _)| settings);
    let hint = match settings {
        Some(settings) if user::is_root() || is_agent(&settings) => of(&error, places),
        Some(settings) => Some(format!("run it as root, with sudo, or as '{}', the agent's account", *settings.user)),
        None => Some("run it as root, with sudo, or as the agent's account".to_owned()),
    };
    let failure = Failure::new(Exit::Permission, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Whether this process has the agent's account.
#[must_use]
pub fn is_agent(settings: &Settings) -> bool {
    let (own, _) = user::current();
    match &*settings.user {
        Account::Name(name) => user::Account::by_name(name).ok().flatten().is_some_and(|agent| agent.uid() == own),
        Account::Id(id) => own.as_raw() == *id,
    }
}

fn of_file(file: &FileError, places: &Places) -> Option<String> {
    let (path, conf) = (file.path().display(), places.config.display());
    if file.is_permission_denied() {
        return Some(format!(
            "the agent's account ('user' in {conf}) must be able to read it, and to enter the directories above it: \
             chgrp ctrl-exec-agent {path}; chmod 640 {path}"
        ));
    }
    if file.is_not_found() && file.path() == places.allowlist {
        return Some("write it, one line a script: NAME = /absolute/path; it may be empty".to_owned());
    }
    if file.is_not_found() && file.path() == places.config {
        let etc = |name: &str| places.root.path("/etc/ctrl-exec-agent").join(name).display().to_string();
        let (cert, key, ca) = (etc("agent.crt"), etc("agent.key"), etc("ca.crt"));
        return Some(format!(
            "write it (or name another with --config); the lines it must have:\n    port = 7443\n    cert = {cert}\n    \
             key = {key}\n    ca = {ca}"
        ));
    }
    None
}
