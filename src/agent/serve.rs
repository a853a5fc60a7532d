//! `serve`: start, serve until told to stop, reload when told to.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::door::Door;
use super::export::Exporter;
use super::orders::{Beginning, ExecutorError, Kinship, Orders};
use super::signals::{Signals, Wish};
use super::snapshot::{self, Places, Snapshot, SnapshotError};
use super::state::Agent;
use super::upgrade::{self, Fit, Footing, UpgradeError};
use super::{bereft, own_certificate, rest, sweep, unapplied};
use crate::audit::{Event, FAREWELL, Ident, Level, Logger, Sockets};
use crate::conf::agent::{Loaded, Settings};
use crate::conf::{Account as Configured, Warnings};
use crate::net::listen::{ListenError, Listener};
use crate::net::local::LocalError;
use crate::sys::handover::{self, Given, Giver, Left};
use crate::sys::notify::Notifier;
use crate::sys::process::{self, Held, Program, Signal};
use crate::sys::user::{self, Account, DropError, Uid};
use crate::wire::causes;

/// How long an agent that cannot go on still serves.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long requests under way may hold up who calls while the agent wants to become another program.
const DRAIN: Duration = Duration::from_secs(5);
/// How long requests under way may take when the agent ends. Service managers kill after 10 s, some after 5.
const FINISH: Duration = Duration::from_secs(3);

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
    /// What was handed over to listen on.
    #[error("cannot listen on what was handed over")]
    Given(#[source] io::Error),
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
pub fn executor(
    places: &Places,
    (kinship, settings): (&Kinship, &Settings),
    footing: &Footing,
    executor: Option<OwnedFd>,
) -> Result<Orders, ServeError> {
    let family = bereft::family(&settings.async_runs_dir).map_err(ServeError::Start)?;
    let beginning = Beginning { descriptors: footing.limit(), file: footing.path(), family, executor };
    Ok(Orders::new(kinship, places, beginning)?)
}

/// Has those signals wait that ask a running agent for something, until it listens: whoever has just changed a file
/// and says so cannot know how far the start is. Must run before a second thread exists.
pub fn hold_signals() -> Result<Held, ServeError> {
    process::hold(&[Signal::SIGHUP, Signal::SIGUSR2]).map_err(ServeError::Start)
}

/// What this process has from before it ran this program, or from whoever started it.
#[derive(Debug)]
pub struct Inheritance {
    /// Sockets that were opened for it.
    pub given: Option<Given>,
    /// The socket to the root executor that it has started.
    pub executor: Option<OwnedFd>,
    /// Lines of the log that it has lost.
    pub unlogged: u64,
    /// What it was started as.
    pub footing: Footing,
}

/// Takes the inheritance. Must run before this process opens a descriptor.
pub fn inheritance(argv: &[OsString]) -> Result<Inheritance, ServeError> {
    let given = handover::tcp_listeners().map_err(ServeError::Given)?;
    let executor = handover::executor().map_err(ServeError::Given)?;
    // As for one that gives up root (`user::drop_to`). One that was started as its account, or as another version of a program
    // that has given up root, holds the same: its key, its connections, and the way to its executor.
    process::let_nobody_look().map_err(ServeError::Start)?;
    let program = Program::own(argv).map_err(ServeError::Start)?;
    let footing = Footing::new(program).map_err(ServeError::Start)?;
    Ok(Inheritance { given, executor, unlogged: handover::unlogged(), footing })
}

/// Whether an agent could serve, for the one that wants to become this program: what [`serve`] needs before it listens.
/// The words that are waited for.
pub fn check(places: &Places, host: &str, warn: Warn<'_>) -> Result<String, ServeError> {
    let loaded = configuration(places)?;
    let log = Logger::open(Ident::Agent, Sockets::new(|place| places.root.path(place)));
    let (_, warnings) = Snapshot::load(places, host, &log)?;
    warn(&warnings);
    Ok(upgrade::ready(&loaded.settings))
}

/// What an agent starts with.
#[derive(Debug)]
pub struct Start {
    /// Its files.
    pub places: Places,
    /// The way to its executor.
    pub orders: Orders,
    /// Sockets that were opened for it.
    pub given: Option<Given>,
    /// Lines of the log that this process has lost before.
    pub unlogged: u64,
    /// What it was started as.
    pub footing: Footing,
    /// The signals that wait until it listens.
    pub held: Held,
}

/// Serves until SIGTERM or SIGINT, or until the agent's own root executor is lost.
pub async fn serve(start: Start, host: String, warn: Warn<'_>) -> Result<(), ServeError> {
    let Start { places, orders, given, unlogged, footing, held } = start;
    let log = Logger::serving(Ident::Agent, Sockets::new(|place| places.root.path(place)));
    log.count_lost(unlogged);
    let (snapshot, warnings) = Snapshot::load(&places, &host, &log)?;
    warn(&warnings);
    snapshot::log_warnings(&log, &warnings);
    unapplied::log(&log, &orders, &snapshot.settings);
    own_certificate::warn(&log, &snapshot.settings, snapshot.fault.as_deref());
    let taken_over = given.as_ref().is_some_and(|given| given.taken_over);
    let appointed = given.as_ref().is_some_and(|given| given.giver == Giver::InitSystem);
    let listener = listener(&snapshot.settings, given, &log)?;
    match orders.start().await {
        Err(error) if orders.is_systems() => log.emit(unreachable(&error)),
        other => other?,
    }
    let notifier = Notifier::from_env().map_err(ServeError::Start)?;
    let agent = Agent::new(places, log, orders, snapshot);
    let exporter = Exporter::default();
    match exporter.open(&agent) {
        // The one before it has turned nobody away, and that is what this one was taken up for.
        Err(error) if taken_over => agent.log().emit(without_metrics(&error)),
        opened => opened.map_err(ServeError::Metrics)?,
    }
    let signals = Signals::listen().map_err(ServeError::Start)?;
    held.release().map_err(ServeError::Start)?;
    announce(&agent, &notifier, &listener.local_addresses());
    let beside = [
        tokio::spawn(sweep::sweep(Arc::clone(&agent))),
        tokio::spawn(sweep::end_stalled(Arc::clone(&agent))),
        tokio::spawn(rest::rest(Arc::clone(&agent))),
        tokio::spawn(bereft::look_after(Arc::clone(&agent))),
    ];
    let door = Door::open(Arc::clone(&agent), listener);
    let mut serving = Serving { agent, notifier, door, exporter, signals, footing, appointed, holding_up: None };
    let ended = serving.until_the_end().await;
    // What cannot be told to the service manager is no reason to stay.
    let _ = serving.notifier.stopping();
    if ended.is_ok() {
        serving.finish().await;
    }
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    // Requests that are broken off now may hold the log for longer than the process lives.
    serving.agent.log().farewell(FAREWELL);
    ended
}

/// The sockets that were opened for this agent, or its own.
fn listener(settings: &Settings, given: Option<Given>, log: &Logger) -> Result<Listener, ServeError> {
    let bind = || Listener::bind(&settings.bind, *settings.port);
    let Some(Given { giver, sockets, .. }) = given else { return Ok(bind()?) };
    let listener = Listener::adopt(sockets).map_err(ServeError::Start)?;
    if listener.is_at(&settings.bind, *settings.port) {
        return Ok(listener);
    }
    let addresses: Vec<String> = listener.local_addresses().iter().map(ToString::to_string).collect();
    let (addresses, differ) = (addresses.join(" "), |text: String| {
        log.emit(Event::new(Level::Warning, "config-warn").field("KEY", "port").field("MSG", text));
    });
    match giver {
        Giver::InitSystem => {
            differ(format!("the init system has opened {addresses}: that counts, and not 'port' and 'bind'"));
            Ok(listener)
        }
        // They were the configuration's once, which has changed since.
        Giver::Predecessor => Ok(bind().unwrap_or_else(|error| {
            let reason = causes::on_one_line(&error);
            differ(format!("still listening at {addresses}: takes effect at the next restart ({reason})"));
            listener
        })),
    }
}

/// An agent that is up.
struct Serving {
    agent: Arc<Agent>,
    notifier: Notifier,
    door: Door,
    exporter: Exporter,
    signals: Signals,
    footing: Footing,
    /// The init system has opened what it listens on.
    appointed: bool,
    /// An upgrade waits for the requests that had begun by this mark.
    holding_up: Option<u64>,
}

impl Serving {
    async fn until_the_end(&mut self) -> Result<(), ServeError> {
        loop {
            let agent = Arc::clone(&self.agent);
            let held_up = async {
                match self.holding_up {
                    Some(mark) => agent.under_way().ended_by(mark).await,
                    None => std::future::pending().await,
                }
            };
            let wish = tokio::select! {
                wish = self.signals.next() => wish,
                () = held_up => Wish::Resume,
                () = agent.orders().lost() => {
                    // A request that found out has its answer, which may still be on its way to the caller.
                    tokio::time::sleep(LAST_WORDS).await;
                    return Err(ExecutorError::Lost.into());
                }
            };
            match wish {
                Wish::Reload => reload(&self.agent, &self.exporter, &self.notifier).await,
                Wish::Upgrade | Wish::Resume => {
                    if self.upgrade(wish).await.is_break() {
                        return Ok(());
                    }
                }
                Wish::End => return Ok(()),
            }
        }
    }

    /// Becomes the program that is at its path now, unless that could not serve, or requests under way hold it up.
    async fn upgrade(&mut self, wish: Wish) -> ControlFlow<()> {
        let waited = self.holding_up.take().is_some();
        let attempted = tokio::select! {
            attempted = attempt(&self.agent, &self.footing) => attempted,
            () = self.signals.end() => return ControlFlow::Break(()),
        };
        let version = match attempted {
            Ok(version) => version,
            Err(error) => {
                self.stays(&error);
                return ControlFlow::Continue(());
            }
        };
        let all_gone = tokio::select! {
            all_gone = self.door.close(DRAIN) => all_gone,
            () = self.signals.end() => return ControlFlow::Break(()),
        };
        let left = self.agent.under_way().count();
        if !all_gone && left > 0 && !(waited && wish == Wish::Upgrade) {
            self.door.reopen();
            self.holding_up = Some(self.agent.under_way().mark());
            let event = self.footing.event(Level::Warning).field("RESULT", "waits for requests under way");
            self.agent.log().emit(event.field("REQUESTS", left).field("VERSION", version));
            return ControlFlow::Continue(());
        }
        let _ = self.notifier.reloading();
        let ready = tokio::select! {
            ready = self.agent.orders().make_ready() => ready,
            () = self.signals.end() => return ControlFlow::Break(()),
        };
        let error = match ready {
            Ok(executor) => {
                let executor = executor.as_ref().map(AsFd::as_fd);
                let event = self.footing.event(Level::Info).field("RESULT", "ok").field("VERSION", version);
                self.agent.log().emit(event);
                // Lines that wait are this program's, and the next one knows no more than how many they were.
                let unlogged = self.agent.log().flush(FAREWELL);
                let left = Left { sockets: self.door.descriptors(), appointed: self.appointed, executor, unlogged };
                UpgradeError::Start(self.footing.take_up(&left))
            }
            Err(error) => error.into(),
        };
        self.stays(&error);
        self.door.reopen();
        let _ = self.notifier.ready("serving", &[]);
        ControlFlow::Continue(())
    }

    fn stays(&self, error: &UpgradeError) {
        let event = self.footing.event(Level::Error).field("REASON", causes::on_one_line(error));
        self.agent.log().emit(event.field("RESULT", "kept the old program"));
    }

    /// Requests under way are finished, within bounds: whoever wants the end twice gets it at once.
    async fn finish(&mut self) {
        tokio::select! {
            _ = self.door.close(FINISH) => {}
            () = self.signals.end() => {}
        }
    }
}

/// The version of the file that is there now, if it could serve.
async fn attempt(agent: &Agent, footing: &Footing) -> Result<String, UpgradeError> {
    let Fit { version, system } = footing.attempt().await?;
    // The configuration would give scripts other rights.
    if system != agent.orders().is_systems() {
        return Err(UpgradeError::OtherExecutor);
    }
    Ok(version)
}

/// Nobody hears what is counted until a reload finds the place free.
fn without_metrics(error: &LocalError) -> Event {
    Event::new(Level::Error, "metrics-listen").field("REASON", causes::on_one_line(error))
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

async fn reload(agent: &Arc<Agent>, exporter: &Exporter, notifier: &Notifier) {
    let _ = notifier.reloading();
    let reloaded = agent.reload(|settings| exporter.prepare(settings)).await;
    agent.metrics.reloaded(reloaded.is_ok());
    let event = match reloaded {
        Ok(change) => {
            exporter.change(agent, change);
            unapplied::log(agent.log(), agent.orders(), &agent.snapshot().settings);
            match &agent.snapshot().unread {
                None => Event::new(Level::Info, "reload").field("RESULT", "ok"),
                Some(lines) => Event::new(Level::Error, "reload").field("ERROR", lines).field("RESULT", "incomplete"),
            }
        }
        Err(error) => {
            let text = causes::on_one_line(&error);
            Event::new(Level::Error, "reload").field("ERROR", text).field("RESULT", "kept the old configuration")
        }
    };
    agent.log().emit(event);
    let _ = notifier.ready("serving", &[]);
}

/// The configuration alone, for what must happen before threads exist.
pub fn configuration(places: &Places) -> Result<Loaded, ServeError> {
    let loaded = snapshot::configuration(places)?;
    match snapshot::unpaired(&loaded.settings) {
        Some(missing) => Err(SnapshotError::Unpaired(missing).into()),
        None => Ok(loaded),
    }
}
