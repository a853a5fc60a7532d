//! `serve`: the agent itself.

use std::ffi::OsString;
use std::time::Duration;

use super::{Globals, kernel_check, prepare, remedy, unconfined};
use crate::agent::orders::{ExecutorError, Kinship};
use crate::agent::pairing;
use crate::agent::serve::{self, Inheritance, ServeError, Start};
use crate::agent::snapshot::Places;
use crate::cli::out;
use crate::conf::Warnings;
use crate::conf::agent::Loaded;
use crate::executor;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::net::local::LocalError;
use crate::sys::host;
use crate::wire::causes;

/// How long the resolver may take to tell the host's own name.
const NAME: Duration = Duration::from_secs(2);

/// What `serve` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Started as root, give it up before anything else: scripts run with the agent's own rights, without profiles
    #[arg(long)]
    unprivileged: bool,
    /// Say whether this file could serve, and do no more: for the running agent, which is about to become it
    #[arg(long, hide = true)]
    check: bool,
}

impl Args {
    /// Whether nothing is to be served.
    pub(super) const fn is_a_check(&self) -> bool {
        self.check
    }
}

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let places = globals.places();
    let fail = |error| failed(error, &places);
    if args.check {
        let ready = serve::check(&places, &host::fqdn(NAME), &show).map_err(fail)?;
        own_executor(args, &places).map_err(fail)?;
        out::line(ready);
        return Ok(Exit::Success);
    }
    let held = serve::hold_signals().map_err(fail)?;
    // Before anything is opened: what was handed over is known by its number alone.
    let words: Vec<OsString> = std::env::args_os().collect();
    let Inheritance { given, executor, unlogged, footing } = serve::inheritance(&words).map_err(fail)?;
    prepare(globals)?;
    let loaded = serve::configuration(&places).map_err(fail)?;
    let kinship = match (Kinship::of(&loaded.settings, args.unprivileged), &executor) {
        // This process had root's rights when it started it.
        (Kinship::Private, Some(_)) => Kinship::Own,
        (kinship, _) => kinship,
    };
    if kinship == Kinship::Own && executor.is_none() {
        // It would say so itself, but for an agent that lacks what it needs to give up root.
        able().map_err(fail)?;
    }
    // With the rights that are given up on the next line.
    let orders = serve::executor(&places, (&kinship, &loaded.settings), &footing, executor).map_err(fail)?;
    serve::drop_root(&loaded.settings).map_err(fail)?;
    remind(&kinship, &loaded);
    let host = host::fqdn(NAME);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.map_err(|error| fail(ServeError::Start(error)))?;
    let start = Start { places: places.clone(), orders, given, unlogged, footing, held };
    runtime.block_on(serve::serve(start, host, &show)).map_err(fail)?;
    Ok(Exit::Success)
}

/// Whether this process could start a root executor.
fn able() -> Result<(), ServeError> {
    Ok(executor::able().map_err(|error| ExecutorError::Unable(causes::on_one_line(&error)))?)
}

/// Whether the executor that this process would start takes the configuration: without it there is no agent. One that
/// runs already is asked itself before the agent becomes another program.
fn own_executor(args: &Args, places: &Places) -> Result<(), ServeError> {
    let kinship = Kinship::of(&serve::configuration(places)?.settings, args.unprivileged);
    if kinship == Kinship::Own {
        able()?;
        kernel_check::policy(&kinship, places).map_err(ExecutorError::Configuration)?;
    }
    Ok(())
}

fn show(warnings: &Warnings) {
    if !warnings.is_empty() {
        out::error(warnings.to_string());
    }
}

/// What an operator should not have to find out.
fn remind(kinship: &Kinship, loaded: &Loaded) {
    if !kinship.applies_profiles() {
        for line in unconfined::warning(loaded) {
            out::error(format!("warning: {line}"));
        }
    }
    if kinship.applies_profiles() && !*loaded.settings.trusted_paths {
        let place = loaded.settings.trusted_paths.place(&loaded.settings.file);
        out::error(format!(
            "warning: {place}: trusted_paths is off: whoever may write to a script or a directory above it decides what \
             runs in its profile"
        ));
    }
    if loaded.settings.auth_hook.is_some() && !*loaded.settings.trusted_paths {
        let place = loaded.settings.trusted_paths.place(&loaded.settings.file);
        out::error(format!(
            "warning: {place}: trusted_paths is off: whoever may write to auth_hook or a directory above it decides about \
             every call"
        ));
    }
}

/// What `promote-cert` does, for an agent that nobody does it for. A configuration that cannot be used is reported later.
fn prepare(globals: &Globals) -> Result<(), Failure> {
    let (files, doubt) = pairing::places::Places::load(&globals.config(), &globals.root());
    if doubt.is_some() {
        return Ok(());
    }
    prepare::prepare(globals, &files).map_err(|error| Failure::new(Exit::Config, error))
}

/// Enough to keep handshakes from delaying requests; an agent is not the host's main work.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4)
}

fn metrics(error: &LocalError) -> String {
    let decides = "'metrics' in agent.conf decides";
    if error.is_in_use() {
        return format!("is another agent running? {decides}");
    }
    format!("{decides}; the directory of a socket must be one that the agent's account may write to")
}

fn failed(error: ServeError, places: &Places) -> Failure {
    let hint = match &error {
        ServeError::Snapshot(error) => remedy::of(error, places),
        ServeError::NoAccount(_) | ServeError::RootAccount => {
            Some(format!("set 'user' in {} to an account without rights, or make the account", places.config.display()))
        }
        ServeError::Listen(_) => Some("is another agent running? 'port' and 'bind' in agent.conf decide".to_owned()),
        ServeError::Metrics(error) => Some(metrics(error)),
        ServeError::Given(_) => {
            Some("the socket unit of the agent has one or more 'ListenStream=PORT' and nothing else".to_owned())
        }
        ServeError::Executor(ExecutorError::Lost) => Some("start the agent again".to_owned()),
        ServeError::Executor(ExecutorError::Unable(_)) => {
            Some("or do without profiles: 'serve --unprivileged' runs scripts with the agent's own rights".to_owned())
        }
        ServeError::Executor(_) | ServeError::Drop(_) | ServeError::Start(_) => None,
    };
    let exit = match &error {
        ServeError::Listen(_)
        | ServeError::Metrics(_)
        | ServeError::Start(_)
        | ServeError::Executor(ExecutorError::Lost) => Exit::Unavailable,
        ServeError::Snapshot(_)
        | ServeError::Given(_)
        | ServeError::Executor(_)
        | ServeError::NoAccount(_)
        | ServeError::RootAccount => Exit::Config,
        ServeError::Drop(_) => Exit::Permission,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
