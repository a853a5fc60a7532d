//! Everything an agent knows from files, as one snapshot. It is replaced whole or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::list_file;
use super::own_certificate::Own;
use super::sidecar::Sidecars;
use crate::audit::{Event, Level, Logger};
use crate::conf::agent::{self, Loaded, Settings};
use crate::conf::scripts::Allowlist;
use crate::conf::{ConfErrors, Root, Source, Warnings};
use crate::hook::Hook;
use crate::pki::chain::TrustAnchor;
use crate::pki::key::PublicKey;
use crate::pki::revoked::RevocationList;
use crate::pki::trust::{LineWarning, TrustMap};
use crate::sys::clock;
use crate::sys::file::{self, FileError};
use crate::tls::files::{self, CredentialError};
use crate::tls::identity::{Identity, IdentitySlot};
use crate::tls::{self, AgentEnd, TlsError};

/// Largest file of the agent's configuration, in bytes.
const FILE: usize = 1024 * 1024;
/// So many lines that cannot be read are named at once.
const UNREAD: usize = 10;

/// Where the two configuration files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// `agent.conf`.
    pub config: PathBuf,
    /// `scripts.conf`.
    pub allowlist: PathBuf,
    /// The prefix of default paths.
    pub root: Root,
}

/// One state of the agent's files.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// `agent.conf`.
    pub settings: Settings,
    /// `scripts.conf`.
    pub allowlist: Allowlist,
    /// What stands beside the scripts.
    pub sidecars: Arc<Sidecars>,
    /// Who may ask.
    pub trust: TrustMap,
    /// Who may not, whatever the trust map says.
    pub revoked: RevocationList,
    /// What of the revocation list is not in force, for the operator.
    pub unread: Option<String>,
    /// The operator's hook.
    pub hook: Option<Hook>,
    /// The host's own name.
    pub host: String,
    /// End of the certificate's validity, in OpenSSL's form.
    pub expiry: String,
    /// Why no dispatcher accepts the certificate now, and what to do; none if all do.
    pub fault: Option<String>,
    /// The key of the certificate, which stays where that is renewed.
    pub key: PublicKey,
    /// For the next handshakes.
    pub tls: AgentEnd,
}

/// Files that make no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The configuration is wrong; every error is listed.
    #[error("{0}")]
    Configuration(ConfErrors),
    /// A file of the certificate, its key or the CA does not exist.
    #[error("not paired: missing file: {}", .0.display())]
    Unpaired(PathBuf),
    /// A certificate, a key or a list.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The hook is no executable file.
    #[error("auth_hook '{}' is not executable", .0.display())]
    Hook(PathBuf),
    /// rustls refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Reads the two configuration files, as the agent, its executor and `self-check` do.
pub fn configuration(places: &Places) -> Result<Loaded, SnapshotError> {
    let read = |path: &Path| Ok::<_, FileError>(Source::new(path, file::read_bounded(path, FILE)?));
    let (config, scripts) = (read(&places.config)?, read(&places.allowlist)?);
    agent::load(&config, &scripts, &places.root).map_err(SnapshotError::Configuration)
}

/// Reads `agent.conf` alone, for what has nothing to do with scripts.
pub fn settings(places: &Places) -> Result<(Settings, Warnings), SnapshotError> {
    let source = Source::new(&places.config, file::read_bounded(&places.config, FILE)?);
    Settings::parse(&source, &places.root).map_err(SnapshotError::Configuration)
}

/// The first of certificate, key and CA that is no regular file: the agent is not paired. One that this user may not
/// look at is not said to be missing.
#[must_use]
pub fn unpaired(settings: &Settings) -> Option<PathBuf> {
    let missing = |path: &Path| match path.metadata() {
        Ok(facts) => !facts.is_file(),
        Err(error) => error.kind() != ErrorKind::PermissionDenied,
    };
    credentials(settings).into_iter().find(|path| missing(path)).map(Path::to_path_buf)
}

/// Whether certificate, key and CA are there, to be seen by this user.
#[must_use]
pub fn is_paired(settings: &Settings) -> bool {
    credentials(settings).into_iter().all(Path::is_file)
}

fn credentials(settings: &Settings) -> [&Path; 3] {
    [&settings.cert, &settings.key, &settings.ca].map(|path| path.as_path())
}

impl Snapshot {
    /// Reads everything. Doubtful lines are logged; anything broken refuses the whole.
    pub fn load(places: &Places, host: &str, log: &Logger) -> Result<(Self, Warnings), SnapshotError> {
        let Loaded { settings, allowlist, warnings } = configuration(places)?;
        if let Some(missing) = unpaired(&settings) {
            return Err(SnapshotError::Unpaired(missing));
        }
        let identity = identity(&settings)?;
        let anchor = anchor(&settings)?;
        let Own { expiry, fault, .. } = Own::judge(identity.certificate(), &anchor, clock::now().into());
        let key = identity.certificate().public_key().clone();
        let tls = tls::agent_end(IdentitySlot::new(identity), &anchor)?;
        let trust = trust(&settings, log)?;
        let (revoked, unread) = revoked(&settings, log)?;
        let hook = hook(&settings)?;
        let host = host.to_owned();
        let sidecars = Arc::new(Sidecars::load(&allowlist, log));
        let read = Self { settings, allowlist, sidecars, trust, revoked, unread, hook, host, expiry, fault, key, tls };
        Ok((read, warnings))
    }
}

/// The agent's certificate and key.
pub fn identity(settings: &Settings) -> Result<Identity, SnapshotError> {
    Ok(files::identity(&settings.cert, &settings.key)?)
}

/// The CA that dispatchers must be of.
pub fn anchor(settings: &Settings) -> Result<TrustAnchor, SnapshotError> {
    Ok(files::anchor(&settings.ca)?)
}

/// A missing map trusts nobody; one that cannot be read refuses the snapshot.
pub fn trust(settings: &Settings, log: &Logger) -> Result<TrustMap, SnapshotError> {
    let path = settings.trusted_dispatchers_path.as_path();
    let Some(text) = optional(path)? else { return Ok(TrustMap::default()) };
    let (map, warnings) = TrustMap::parse(&text);
    report(path, &warnings, log);
    Ok(map)
}

/// A missing list revokes nobody and is logged; one that cannot be read refuses the snapshot, since dropping it would
/// let revoked certificates in. A line of it that cannot be read is no reason to leave the others out of force, but the
/// operator hears of it wherever the list is taken for good.
pub fn revoked(settings: &Settings, log: &Logger) -> Result<(RevocationList, Option<String>), SnapshotError> {
    let path = settings.revoked_serials.as_path();
    let Some(text) = optional(path)? else {
        let event = Event::new(Level::Info, "revoked-serials-absent").field("PATH", path.display());
        log.emit(event.field("REASON", "no revocation list: nothing is revoked"));
        return Ok((RevocationList::default(), None));
    };
    let (list, warnings) = RevocationList::parse(&text);
    report(path, &warnings, log);
    let lines: Vec<String> = warnings.iter().take(UNREAD).map(|warning| warning.line.to_string()).collect();
    let more = if warnings.len() > UNREAD { ", and more" } else { "" };
    let unread = format!("{}: no serial on line {}{more}: it revokes nothing", path.display(), lines.join(", "));
    Ok((list, (!warnings.is_empty()).then_some(unread)))
}

/// The text of the trust map or the revocation list; empty where there is no such file.
///
/// # Errors
/// As [`trust`] and [`revoked`].
pub fn list_text(path: &Path) -> Result<String, SnapshotError> {
    optional(path).map(Option::unwrap_or_default)
}

fn optional(path: &Path) -> Result<Option<String>, SnapshotError> {
    Ok(list_file::read(path)?.map(|bytes| list_file::text(&bytes)))
}

fn report(path: &Path, warnings: &[LineWarning], log: &Logger) {
    for warning in warnings {
        let event = Event::new(Level::Warning, "config-warn");
        let entry = format!("{}:{}", path.display(), warning.line);
        log.emit(event.field("ENTRY", entry).field("MSG", &warning.reason));
    }
}

/// Doubtful lines of the configuration, one event each.
pub fn log_warnings(log: &Logger, warnings: &Warnings) {
    for warning in warnings.iter() {
        let event = Event::new(Level::Warning, "config-warn");
        if let Some(key) = warning.key() {
            log.emit(event.field("KEY", key).field("MSG", warning.summary()));
            continue;
        }
        let entry = match warning.line() {
            Some(line) => format!("{}:{line}", warning.path().display()),
            None => warning.path().display().to_string(),
        };
        log.emit(event.field("ENTRY", entry).field("MSG", warning.message()));
    }
}

/// The hook. Serving does not begin with one that cannot be executed.
pub fn hook(settings: &Settings) -> Result<Option<Hook>, SnapshotError> {
    let Some(path) = &settings.auth_hook else { return Ok(None) };
    if !file::is_executable(path) {
        return Err(SnapshotError::Hook(path.to_path_buf()));
    }
    let hook = Hook::new(path.to_path_buf(), settings.auth_hook_timeout);
    Ok(Some(if *settings.trusted_paths { hook } else { hook.of_anybody() }))
}
