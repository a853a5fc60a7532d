//! The way to the executor: connections for orders, fresh ones and those that monitors keep ([`kept`]), and a reload that is
//! answered.
//!
//! There are three, as [`crate::executor`] describes them from the other side, and the front-end picks one at its start:
//!
//! | the agent | its executor | if that dies |
//! |---|---|---|
//! | has `executor_socket` | the system's, through that socket | runs fail until the system has started another |
//! | was started as root | its own, started before it became the agent's account | its keeper starts another |
//! | has no rights | a private child with the agent's rights | the next order starts another |
//!
//! Orders under way are never touched by that, since each has its own monitor.

mod contents;
pub mod kept;
mod line;
mod private;
mod system;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::timeout;

use self::kept::Kept;
use self::line::{End, Fresh, Line};
use self::private::Private;
use super::snapshot::Places;
use crate::conf::agent::Settings;
use crate::sys::fdpass::{self, Kind};
use crate::sys::process::Family;
use crate::sys::user;
use crate::wire::control::{Control, Reloaded};

/// How long the executor may take to read its configuration.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the system's executor may take to say that it is there.
const GLANCE: Duration = Duration::from_secs(2);

/// The executor and the way to it.
#[derive(Debug)]
pub struct Orders {
    way: Way,
    lost: Notify,
    /// Of the agent's own root executor and its keeper.
    end: OnceLock<End>,
    kept: Arc<Kept>,
    /// The executor was not told of the configuration that is in force here.
    behind: AtomicBool,
}

#[derive(Debug)]
enum Way {
    Private(Private),
    Own(Mutex<Own>),
    System(PathBuf),
}

/// The agent's own root executor, which cannot be started again.
#[derive(Debug)]
enum Own {
    /// Not heard of yet.
    Fresh(Fresh),
    Ready(Line),
    Gone,
}

/// Which kind of executor carries out an agent's orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// A child with the agent's own rights.
    Private,
    /// A child with root's rights.
    Own,
    /// The system's, at this socket.
    System(PathBuf),
}

impl Kinship {
    /// Which executor a front-end with these settings has, if it starts with the rights of this process. One that gives
    /// up root without a root executor (`unprivileged`) has no more than anybody.
    #[must_use]
    pub fn of(settings: &Settings, unprivileged: bool) -> Self {
        match &settings.executor_socket {
            Some(path) => Self::System(path.to_path_buf()),
            None if user::is_root() && !unprivileged => Self::Own,
            None => Self::Private,
        }
    }

    /// Whether profiles are applied.
    #[must_use]
    pub const fn applies_profiles(&self) -> bool {
        !matches!(self, Self::Private)
    }
}

/// What the way to an executor begins with.
#[derive(Debug)]
pub struct Beginning {
    /// The limit on descriptors that scripts get.
    pub descriptors: u64,
    /// Where this program's file is, or another version of it will be.
    pub file: PathBuf,
    /// Whose the runs of a private executor are.
    pub family: Family,
    /// The socket to the root executor that this process started when it ran another program.
    pub executor: Option<OwnedFd>,
}

/// An executor that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ExecutorError {
    /// It did not start, or went away.
    #[error("the executor cannot be started")]
    Start(#[source] io::Error),
    /// It reads the same files and found them broken.
    #[error("the executor cannot use the configuration: {0}")]
    Configuration(String),
    /// It cannot serve, whatever the configuration.
    #[error("the executor cannot serve: {0}")]
    Unable(String),
    /// It answered nothing in time.
    #[error("the executor did not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    /// Nobody is at its socket, or somebody else.
    #[error("no executor can be reached at {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It does not become another version of its file.
    #[error("the executor stays the program that it is: {0}")]
    Stays(String),
    /// The agent's own root executor and its keeper are gone.
    #[error("the executor is gone, and an agent that has given up root cannot start another")]
    Lost,
}

impl ExecutorError {
    fn into_io(self) -> io::Error {
        match self {
            Self::Start(error) | Self::Unreachable { source: error, .. } => error,
            other => io::Error::other(other),
        }
    }
}

impl Orders {
    /// Orders to the executor of an agent at these places. A root executor of the agent's own is started here, unless it
    /// was before: call it while the process is root, and before it has a second thread. A private one is not started
    /// yet.
    ///
    /// # Errors
    /// Out of processes or descriptors.
    pub fn new(kinship: &Kinship, places: &Places, beginning: Beginning) -> Result<Self, ExecutorError> {
        let Beginning { descriptors, file, family, executor } = beginning;
        let way = match kinship {
            Kinship::System(path) => Way::System(path.clone()),
            Kinship::Private => {
                let mut words = arguments("serve-private", places, descriptors);
                words.push(family.word().into());
                Way::Private(Private::new(words, family))
            }
            Kinship::Own => {
                let mut words = arguments("serve-own", places, descriptors);
                words.push(file.into());
                let fresh = executor.map_or_else(|| Fresh::start(&words), Fresh::known);
                Way::Own(Mutex::new(Own::Fresh(fresh.map_err(ExecutorError::Start)?)))
            }
        };
        Ok(Self {
            way,
            lost: Notify::new(),
            end: OnceLock::new(),
            kept: Arc::default(),
            behind: AtomicBool::new(false),
        })
    }

    /// Waits until the executor is ready. One of the system's is only greeted: whether it is there now says little about
    /// the moment of an order.
    pub async fn start(&self) -> Result<(), ExecutorError> {
        match &self.way {
            Way::Private(private) => private.start(&mut *private.line.lock().await).await?,
            Way::Own(own) => {
                let mut own = own.lock().await;
                if let Own::Fresh(fresh) = std::mem::replace(&mut *own, Own::Gone) {
                    let line = fresh.ready().await?;
                    self.end.get_or_init(|| line.end());
                    *own = Own::Ready(line);
                }
            }
            Way::System(path) => drop(system::ask(path, Control::Hello).await?),
        }
        Ok(())
    }

    /// Whether the executor is there, as far as that can be known without giving it work. One that is being asked for
    /// something else counts as there.
    pub async fn answers(&self) -> bool {
        match &self.way {
            Way::System(path) => timeout(GLANCE, greet(path)).await.is_ok_and(|greeted| greeted.is_ok()),
            Way::Private(Private { line, .. }) => {
                line.try_lock().map_or(true, |mut line| line.as_mut().is_some_and(Line::is_alive))
            }
            Way::Own(own) => {
                let ready = |own: &mut Own| if let Own::Ready(line) = own { line.is_alive() } else { false };
                own.try_lock().map_or(true, |mut own| ready(&mut own))
            }
        }
    }

    /// Whether it is the system's. Then the agent can go on without it, because the system starts it anew.
    #[must_use]
    pub const fn is_systems(&self) -> bool {
        matches!(self.way, Way::System(_))
    }

    /// Whether its executor applies profiles. A private one has the agent's own rights and no others to give.
    #[must_use]
    pub const fn applies_profiles(&self) -> bool {
        !matches!(self.way, Way::Private(_))
    }

    /// Makes ready for another program of this process. A private executor ends, since that program would not know it. An
    /// own root executor becomes the version of its file that is there now, and its socket is what has to be left open.
    /// Orders under way go on in any case, and other orders are still possible.
    ///
    /// # Errors
    /// A root executor stays what it is.
    pub async fn make_ready(&self) -> Result<Option<OwnedFd>, ExecutorError> {
        self.kept.renew();
        match &self.way {
            Way::System(_) => {}
            Way::Private(Private { line, .. }) => {
                if let Some(line) = line.lock().await.take() {
                    line.close().await;
                }
            }
            Way::Own(own) => {
                let mut own = own.lock().await;
                let Own::Ready(line) = &*own else { return Err(ExecutorError::Lost) };
                let said = line.upgrade().await;
                let answered = if said.is_ok() { line.answer().await } else { Ok(()) };
                let socket = self.note(&mut own, said).map_err(ExecutorError::Start)?;
                return match answered {
                    Ok(()) => Ok(Some(socket)),
                    Err(ExecutorError::Configuration(text)) => Err(ExecutorError::Stays(text)),
                    Err(other) => Err(other),
                };
            }
        }
        Ok(None)
    }

    /// Connections whose monitors are free.
    #[must_use]
    pub const fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    /// A fresh order connection. Starts a private executor anew if it has died.
    ///
    /// **Invariant:** no order is given to an executor that may decide by an older configuration than this agent.
    pub async fn open(&self) -> io::Result<OwnedFd> {
        if self.behind.load(Ordering::SeqCst) {
            self.reload().await.map_err(ExecutorError::into_io)?;
        }
        let private = match &self.way {
            Way::System(path) => return system::open(path).await,
            Way::Own(own) => return self.open_own(&mut *own.lock().await).await,
            Way::Private(private) => private,
        };
        let (ours, theirs) = fdpass::pair(Kind::Stream)?;
        let mut line = private.line.lock().await;
        if let Some(open) = line.as_ref()
            && open.order(&theirs).await.is_ok()
        {
            return Ok(ours);
        }
        private.lose(&mut line).await;
        private.start(&mut line).await.map_err(ExecutorError::into_io)?;
        let fresh = line.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        fresh.order(&theirs).await.map(|()| ours)
    }

    async fn open_own(&self, own: &mut Own) -> io::Result<OwnedFd> {
        let Own::Ready(line) = own else { return Err(ExecutorError::Lost.into_io()) };
        let (ours, theirs) = fdpass::pair(Kind::Stream)?;
        let said = line.order(&theirs).await;
        self.note(own, said)?;
        Ok(ours)
    }

    /// Has the executor read its configuration again.
    pub async fn reload(&self) -> Result<(), ExecutorError> {
        self.kept.renew();
        let reloaded = self.tell_to_reload().await;
        if reloaded.is_ok() {
            self.behind.store(false, Ordering::SeqCst);
        }
        reloaded
    }

    /// The configuration in force here is one that the executor could not be told of: it will be, before its next order.
    pub fn leave_behind(&self) {
        self.behind.store(true, Ordering::SeqCst);
    }

    async fn tell_to_reload(&self) -> Result<(), ExecutorError> {
        let private = match &self.way {
            Way::System(path) => return system::ask(path, Control::Reload).await.map(drop),
            Way::Own(own) => return self.reload_own(&mut *own.lock().await).await,
            Way::Private(private) => private,
        };
        let mut line = private.line.lock().await;
        if let Some(open) = line.as_ref()
            && open.reload().await.is_ok()
        {
            let answer = open.answer().await;
            if !matches!(answer, Ok(()) | Err(ExecutorError::Configuration(_))) {
                private.lose(&mut line).await;
            }
            return answer;
        }
        private.lose(&mut line).await;
        private.start(&mut line).await
    }

    async fn reload_own(&self, own: &mut Own) -> Result<(), ExecutorError> {
        let Own::Ready(line) = own else { return Err(ExecutorError::Lost) };
        if line.reload().await.is_ok() {
            return line.answer().await;
        }
        *own = Own::Gone;
        self.lost.notify_one();
        Err(ExecutorError::Lost)
    }

    /// A socket without another end has lost both the executor and its keeper.
    fn note<T>(&self, own: &mut Own, said: io::Result<T>) -> io::Result<T> {
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
        if said.as_ref().is_err_and(|error| gone.contains(&error.kind())) {
            *own = Own::Gone;
            self.lost.notify_one();
        }
        said
    }

    /// Waits until the agent's own root executor is lost for good: it and its keeper are gone.
    pub async fn lost(&self) {
        let Some(end) = self.end.get() else { return self.lost.notified().await };
        tokio::select! {
            () = self.lost.notified() => {}
            () = end.comes() => {}
        }
    }
}

/// Whether an executor of the system answers at `path`; returns the process that made its socket, which is the executor
/// itself unless the init system did.
///
/// # Errors
/// Why it does not.
pub async fn greet(path: &Path) -> Result<i32, ExecutorError> {
    system::ask(path, Control::Hello).await
}

fn arguments(role: &str, places: &Places, descriptors: u64) -> Vec<OsString> {
    let limit = OsString::from(descriptors.to_string());
    let (config, allowlist) = (places.config.as_os_str(), places.allowlist.as_os_str());
    [role.as_ref(), config, allowlist, places.root.prefix().as_os_str(), &limit].map(OsStr::to_owned).to_vec()
}

/// What an answer says.
fn judge(text: &[u8]) -> Result<(), ExecutorError> {
    match serde_json::from_slice(text) {
        Ok(Reloaded::Done) => Ok(()),
        Ok(Reloaded::Failed { text }) => Err(ExecutorError::Configuration(text)),
        Ok(Reloaded::Unable { text }) => Err(ExecutorError::Unable(text)),
        Err(error) => Err(ExecutorError::Start(error.into())),
    }
}
