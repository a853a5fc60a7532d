//! `self-check`: what serving would find, and what needs hands.

use std::error::Error;
use std::fmt;
use std::path::Path;

use super::port_check::Port;
use super::script_check::{Scripts, Told};
use super::whose::{self, Known, Whose};
use super::{
    Globals, certificate_check, kernel_check, list_check, profile_check, remedy, script_check, state_check, unconfined,
};
use crate::agent::orders::Kinship;
use crate::agent::serve;
use crate::agent::snapshot::{self, Places, Snapshot, SnapshotError};
use crate::audit::{Ident, Logger};
use crate::cli::out;
use crate::conf::agent::Loaded;
use crate::executor;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::net::local::LocalListener;
use crate::sys::{file, user};
use crate::wire::causes;

/// What `self-check` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check what 'serve --unprivileged' would use, whoever asks
    #[arg(long)]
    unprivileged: bool,
}

/// Checks; 1 if serving would fail, a script cannot be executed, or nobody is trusted; else 77 if this user cannot find out
/// which executor the agent has, or what that one's account finds.
///
/// **Invariant:** it looks with the eyes of the agent. Started as root it becomes the agent's account, as `serve` does,
/// or a file that only root can read would seem to be in order; and its last check is the very function that serving
/// starts with.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    out::line("Checking config...");
    let places = globals.places();
    let mut loaded = snapshot::configuration(&places).map_err(|error| broken(error, &places))?;
    if !loaded.warnings.is_empty() {
        out::error(loaded.warnings.to_string());
    }
    out::line(format!("  Config OK (port {})", *loaded.settings.port));
    out::line(format!("  Allowlist OK ({} scripts)", loaded.allowlist.len()));
    // Asked before the account is taken, since it depends on who starts the agent.
    let whose = whose::look(&loaded.settings, &places.config, args.unprivileged);
    whose.settle(&mut loaded.settings);
    let kinship = &whose.kinship;
    let mut good = profile_check::profiles(&loaded, kinship, &places);
    let lacking = kernel_check::kernel(kinship, &places);
    let told = Told { refused: !good || lacking.is_none(), lacking: lacking.unwrap_or_default() };
    good &= !told.refused && told.lacking.is_empty();
    // Likewise: what it is that scripts will find.
    let as_executor = kinship.applies_profiles().then(|| Scripts::look(kinship, &loaded, &places, told));
    good &= as_executor.as_ref().is_none_or(|scripts| !scripts.hindered());
    if good {
        profile_check::passed(kinship);
    }
    // Likewise: who holds a socket is not everybody's to see.
    let port = Port::look(&loaded.settings, &places.config);
    good &= account(&loaded);
    good &= port.check(&loaded.settings);
    good &= certificate_check::certificates(globals, &loaded);
    // What another account sees is not what the agent finds.
    let eyes = remedy::is_agent(&loaded.settings) || !user::is_root() && whose.known == Known::IfStartedHere;
    let guarded = certificate_check::guarded(&loaded.settings, eyes);
    good &= guarded != Some(false);
    good &= list_check::lists(&loaded, &places);
    let state = state_check::places(&loaded.settings, eyes);
    good &= state != Some(false);
    good &= state_check::staged(globals, &loaded);
    good &= executor(&whose, &loaded);
    good &= hook(&loaded);
    good &= metrics(&loaded);
    // A private executor sees what the agent sees.
    let scripts = as_executor.unwrap_or_else(|| Scripts::look(kinship, &loaded, &places, Told::default()));
    good &= scripts.tell(kinship, &loaded);
    good &= script_check::contracts(&loaded, &to_stderr());
    good = good && everything(&places);
    out::line("Self-check complete.");
    let told = guarded.is_some() && state.is_some() && !matches!(whose.known, Known::Not(_));
    Ok(match (good, told) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Permission,
        (true, true) => Exit::Success,
    })
}

/// A configuration that cannot be used, under the words that the original used for it.
#[derive(Debug)]
struct ConfigError {
    file: &'static str,
    source: SnapshotError,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} error: {}", self.file, self.source)
    }
}

impl Error for ConfigError {
    /// The words above are this error's own and the snapshot's.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

/// How a check ends that finds no usable configuration.
#[must_use]
pub fn broken(error: SnapshotError, places: &Places) -> Failure {
    let remedy = remedy::of(&error, places);
    let list = &places.allowlist;
    let of_list = match &error {
        SnapshotError::Configuration(errors) => errors.iter().all(|error| error.path() == list),
        SnapshotError::File(error) => error.path() == list,
        _ => false,
    };
    let file = if of_list { "Allowlist" } else { "Config" };
    let failure = Failure::new(Exit::Failed, ConfigError { file, source: error });
    match remedy {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

/// Becomes the account that serving would become.
fn account(loaded: &Loaded) -> bool {
    if !user::is_root() {
        return true;
    }
    let name = &*loaded.settings.user;
    match serve::drop_root(&loaded.settings) {
        Ok(()) => {
            out::line(format!("  Account OK (checked as '{name}')"));
            true
        }
        Err(error) => {
            out::line(format!("  Account: {}", causes::on_one_line(&error)));
            false
        }
    }
}

/// What serving starts with. Its log lines were all seen above.
fn everything(places: &Places) -> bool {
    let log = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
    match Snapshot::load(places, "localhost", &log) {
        Ok(_) => true,
        Err(error) => {
            out::line(format!("  Serving: {}", remedy::told(error, places)));
            false
        }
    }
}

fn to_stderr() -> Logger {
    Logger::to_writer(Ident::Agent, Box::new(std::io::stderr()))
}

/// Whether there is one, and whether it would take this configuration.
fn executor(whose: &Whose, loaded: &Loaded) -> bool {
    let mut good = true;
    match &whose.kinship {
        Kinship::System(path) if !matches!(whose.known, Known::Not(_)) => match kernel_check::greet(path) {
            Ok(_) => out::line(format!("  Executor OK ({} answers)", path.display())),
            Err(reason) => {
                good = false;
                out::line(format!("  Executor: {reason}: is ctrl-exec-exec running?"));
            }
        },
        _ => out::line(format!("  Executor: {}", whose.checked())),
    }
    if !whose.kinship.applies_profiles() {
        if !matches!(whose.known, Known::Not(_)) {
            for line in unconfined::warning(loaded) {
                out::line(format!("  Warning: {line}"));
            }
        }
        return true;
    }
    for path in [loaded.settings.file.as_path(), loaded.allowlist.file()] {
        if let Err(error) = file::resolve_trusted(path) {
            good = false;
            out::line(format!("  Executor: {}", causes::on_one_line(&error)));
        }
    }
    good
}

fn metrics(loaded: &Loaded) -> bool {
    let Some(endpoint) = &loaded.settings.metrics else { return true };
    let place = endpoint.place(&loaded.settings.file);
    match LocalListener::check(endpoint) {
        Ok(()) => out::line(format!("  Metrics OK ({})", **endpoint)),
        // Not a fault: a check is for running agents too.
        Err(error) if error.is_in_use() => {
            out::line(format!("  Metrics: {} is in use: by this agent, if it runs ({place})", **endpoint));
        }
        Err(error) => {
            out::line(format!("  Metrics: {} ({place})", causes::on_one_line(&error)));
            return false;
        }
    }
    true
}

/// Why a hook that may be executed could not be started.
pub(super) fn hook_unstartable(path: &Path) -> Option<String> {
    executor::unstartable(path, Path::new("/")).map(|why| format!("{} cannot start: {why}", path.display()))
}

/// Whether the hook would be asked at all. Everything else about it is its own affair.
fn hook(loaded: &Loaded) -> bool {
    let Some(path) = &loaded.settings.auth_hook else { return true };
    let doubt = match snapshot::hook(&loaded.settings) {
        Err(_) => Some(format!("{} is not executable", path.display())),
        Ok(hook) => hook.and_then(|hook| hook.doubt()).map(|(_, doubt)| doubt).or_else(|| hook_unstartable(path)),
    };
    let Some(doubt) = doubt else { return true };
    let doubt = doubt.strip_prefix("auth hook ").unwrap_or(&doubt);
    out::line(format!("  Auth hook: {doubt}: every call is denied"));
    false
}
