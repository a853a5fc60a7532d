//! `serve`: start, serve until told to stop, reload when told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;

use super::connection;
use super::export::Exporter;
use super::orders::{ExecutorError, Kinship, Orders};
use super::snapshot::{self, Places, Snapshot, SnapshotError};
use super::state::{Agent, log_warnings};
use super::sweep;
use crate::audit::{Event, Ident, Level, Logger, Sockets};
use crate::conf::agent::{Loaded, Settings};
use crate::conf::{Account as Configured, Warnings};
use crate::net::listen::{ListenError, Listener};
use crate::net::local::LocalError;
use crate::sys::descriptors;
use crate::sys::notify::Notifier;
use crate::sys::user::{self, Account, DropError, Uid};
use crate::wire::causes;

/// Tasks alive at once: every admitted connection is one. Accepting waits when all are taken.
const TASKS: usize = 8192;
/// How long an agent that cannot go on still serves.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Descriptors wanted: one for each connection, and four more for each script that runs.
const DESCRIPTORS: u64 = 16_384;

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Configuration, certificates or trust.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The place for metrics.
    #[error("metrics")]
    Metrics(#[source] LocalError),
    /// The executor.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// Started as root without an account to become.
    #[error("started as root, and the account '{0}' that the agent should become does not exist")]
    NoAccount(String),
    /// Started as root, told to stay root.
    #[error("started as root, and 'user' names root: no script runs as root by accident")]
    RootAccount,
    /// Dropping root failed; the process ends at once.
    #[error(transparent)]
    Drop(#[from] DropError),
    /// The user database, the runtime or a signal handler.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

/// What `serve` prints before it goes on.
pub type Warn<'a> = &'a dyn Fn(&Warnings);

/// Started as root: becomes the agent's account for good. Must run before a second thread exists.
pub fn drop_root(settings: &Settings) -> Result<(), ServeError> {
    if !user::is_root() {
        return Ok(());
    }
    let account = match &*settings.user {
        Configured::Name(name) => Account::by_name(name),
        Configured::Id(id) => Account::by_uid(Uid::from_raw(*id)),
    };
    let found = account.map_err(ServeError::Start)?;
    let account = found.ok_or_else(|| ServeError::NoAccount(settings.user.to_string()))?;
    if account.uid().is_root() {
        return Err(ServeError::RootAccount);
    }
    Ok(user::drop_to(&account)?)
}

/// The way to the agent's executor, which is started here where it needs the rights that are given up next. Must run
/// before [`drop_root`] and before a second thread exists.
pub fn executor(places: &Places, kinship: &Kinship) -> Result<Orders, ServeError> {
    let limit = descriptors::raise(DESCRIPTORS).map_err(ServeError::Start)?;
    Ok(Orders::new(kinship, places, limit)?)
}

/// Serves until SIGTERM or SIGINT, or until the agent's own root executor is lost.
pub async fn serve(places: Places, host: String, orders: Orders, warn: Warn<'_>) -> Result<(), ServeError> {
    let log = Logger::open(Ident::Agent, Sockets::new(|place| places.root.path(place)));
    let (snapshot, warnings) = Snapshot::load(&places, &host, &log)?;
    warn(&warnings);
    log_warnings(&log, &warnings);
    let listener = Listener::bind(&snapshot.settings.bind, *snapshot.settings.port)?;
    match orders.start().await {
        Err(error) if orders.can_wait() => log.emit(unreachable(&error)),
        other => other?,
    }
    let notifier = Notifier::from_env().map_err(ServeError::Start)?;
    let agent = Agent::new(places, log, orders, snapshot);
    let exporter = Exporter::default();
    exporter.open(&agent).map_err(ServeError::Metrics)?;
    let mut signals = Signals::listen().map_err(ServeError::Start)?;
    announce(&agent, &notifier, &listener.local_addresses());
    let sweeping = tokio::spawn(sweep::sweep(Arc::clone(&agent)));
    let accepting = tokio::spawn(accept(Arc::clone(&agent), listener));
    let ended = loop {
        tokio::select! {
            reload_wanted = signals.next_is_reload() => if reload_wanted {
                reload(&agent, &exporter, &notifier).await;
            } else {
                break Ok(());
            },
            () = agent.orders().lost() => {
                // The request that found out has its answer, which is still on its way to the caller.
                tokio::time::sleep(LAST_WORDS).await;
                break Err(ExecutorError::Lost.into());
            }
        }
    };
    // What cannot be told to the service manager is no reason to stay.
    let _ = notifier.stopping();
    accepting.abort();
    sweeping.abort();
    ended
}

/// The system's executor is not there yet, or not any more. It may be at the next order.
fn unreachable(error: &ExecutorError) -> Event {
    Event::new(Level::Warning, "executor-unreachable").field("REASON", causes::on_one_line(error))
}

fn announce(agent: &Agent, notifier: &Notifier, addresses: &[SocketAddr]) {
    let port = addresses.first().map_or(0, SocketAddr::port);
    agent.log().emit(Event::new(Level::Info, "start").field("PORT", port));
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let extra: Vec<(&str, &str)> = texts.iter().map(|text| ("X_CTRL_EXEC_ADDRESS", text.as_str())).collect();
    // A service manager that does not listen is its own problem; the agent serves all the same.
    let _ = notifier.ready(&format!("serving on port {port}"), &extra);
}

async fn accept(agent: Arc<Agent>, listener: Listener) {
    let tasks = Arc::new(Semaphore::new(TASKS));
    loop {
        let (stream, address) = listener.accept(|error| trouble(&agent, error)).await;
        let Ok(place) = Arc::clone(&tasks).acquire_owned().await else { return };
        let Some(admission) = connection::admit(&agent, address.ip()) else { continue };
        let agent = Arc::clone(&agent);
        tokio::spawn(async move {
            connection::serve(agent, admission, stream, address).await;
            drop(place);
        });
    }
}

/// The listener itself is in trouble, usually for want of descriptors. It goes on; the operator should know.
fn trouble(agent: &Agent, error: &io::Error) {
    agent.log().emit(Event::new(Level::Error, "accept-error").field("REASON", error));
}

async fn reload(agent: &Arc<Agent>, exporter: &Exporter, notifier: &Notifier) {
    let _ = notifier.reloading();
    let reloaded = agent.reload(|settings| exporter.prepare(settings)).await;
    agent.metrics.reloaded(reloaded.is_ok());
    let event = match reloaded {
        Ok(change) => {
            exporter.change(agent, change);
            Event::new(Level::Info, "reload").field("RESULT", "ok")
        }
        Err(error) => {
            let text = causes::on_one_line(&error);
            Event::new(Level::Error, "reload").field("ERROR", text).field("RESULT", "kept the old configuration")
        }
    };
    agent.log().emit(event);
    let _ = notifier.ready("serving", &[]);
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal: `true` for a reload, `false` for the end.
    async fn next_is_reload(&mut self) -> bool {
        tokio::select! {
            _ = self.hangup.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
        }
    }
}

/// The configuration alone, for what must happen before threads exist.
pub fn configuration(places: &Places) -> Result<Loaded, ServeError> {
    let loaded = snapshot::configuration(places)?;
    match snapshot::unpaired(&loaded.settings) {
        Some(missing) => Err(SnapshotError::Unpaired(missing).into()),
        None => Ok(loaded),
    }
}
