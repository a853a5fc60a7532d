//! `serve`: the agent itself.

use std::time::Duration;

use super::{Globals, remedy};
use crate::agent::pairing::{self, keep};
use crate::agent::serve::{self, ServeError};
use crate::agent::snapshot::Places;
use crate::cli::out;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::{host, user};

/// How long the resolver may take to tell the host's own name.
const NAME: Duration = Duration::from_secs(2);

/// Serves until SIGTERM or SIGINT.
pub fn run(globals: &Globals) -> Result<Exit, Failure> {
    let places = globals.places();
    let fail = |error| failed(error, &places);
    finish_pairing(globals)?;
    let settings = serve::settings(&places).map_err(fail)?;
    serve::drop_root(&settings).map_err(fail)?;
    if settings.profiles.values().any(|profile| profile.run_as.is_some()) {
        let (uid, _) = user::current();
        out::error(format!(
            "warning: without a root executor every script runs with this agent's own rights (uid {uid}); run_as, caps \
             and writable of the profiles are not applied"
        ));
    }
    let host = host::fqdn(NAME);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.map_err(|error| fail(ServeError::Start(error)))?;
    let warn = |warnings: &crate::conf::Warnings| {
        if !warnings.is_empty() {
            out::error(warnings.to_string());
        }
    };
    runtime.block_on(serve::serve(places.clone(), host, &warn)).map_err(fail)?;
    Ok(Exit::Success)
}

/// A pairing that was killed while it was stored is completed first, or certificate and key would not fit.
fn finish_pairing(globals: &Globals) -> Result<(), Failure> {
    let (files, _) = pairing::places::Places::load(&globals.config(), &globals.root());
    if keep::recover(&files).map_err(|error| Failure::new(Exit::Config, error))? {
        out::error("An earlier pairing was interrupted while it was stored; it is complete now.");
    }
    Ok(())
}

/// Enough to keep handshakes from delaying requests; an agent is not the host's main work.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4)
}

fn failed(error: ServeError, places: &Places) -> Failure {
    let hint = match &error {
        ServeError::Snapshot(error) => remedy::of(error, places),
        ServeError::NoAccount(_) | ServeError::RootAccount => {
            Some(format!("set 'user' in {} to an account without rights, or make the account", places.config.display()))
        }
        ServeError::Listen(_) => Some("is another agent running? 'port' and 'bind' in agent.conf decide".to_owned()),
        ServeError::Executor(_) | ServeError::Drop(_) | ServeError::Start(_) => None,
    };
    let exit = match &error {
        ServeError::Snapshot(_) | ServeError::Executor(_) | ServeError::NoAccount(_) | ServeError::RootAccount => {
            Exit::Config
        }
        ServeError::Listen(_) | ServeError::Start(_) => Exit::Unavailable,
        ServeError::Drop(_) => Exit::Permission,
    };
    let failure = Failure::new(exit, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
