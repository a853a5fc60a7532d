//! The agent's listener, what came through it, and closing it for a while or for good.
//!
//! While it is closed, the kernel goes on to take connections in: whoever calls then waits for the one who opens the
//! door again, be that this process or the next. Those that are inside are told to go, and finish what they have begun.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::net::listen::Listener;

/// Tasks alive at once: every admitted connection is one. Accepting waits when all are taken.
const TASKS: u32 = 8192;

/// The way in.
#[derive(Debug)]
pub struct Door {
    agent: Arc<Agent>,
    listener: Arc<Listener>,
    tasks: Arc<Semaphore>,
    /// Every place, while nobody is inside and nobody may come in.
    closed: Option<OwnedSemaphorePermit>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Door {
    /// Lets everybody in who may come.
    #[must_use]
    pub fn open(agent: Arc<Agent>, listener: Listener) -> Self {
        let (listener, tasks) = (Arc::new(listener), Arc::new(Semaphore::new(TASKS as usize)));
        let accepting = tokio::spawn(accept(Arc::clone(&agent), Arc::clone(&listener), Arc::clone(&tasks)));
        Self { agent, listener, tasks, closed: None, accepting }
    }

    /// Lets nobody in any more, and tells everybody inside to go. Whether all have gone within `patience`.
    pub async fn close(&mut self, patience: Duration) -> bool {
        self.agent.leaving.send_replace(true);
        let all = Arc::clone(&self.tasks).acquire_many_owned(TASKS);
        self.closed = timeout(patience, all).await.ok().and_then(Result::ok);
        self.closed.is_some()
    }

    /// Opens it again. Who was told to go still goes.
    pub fn reopen(&mut self) {
        self.closed = None;
        self.agent.leaving.send_replace(false);
    }

    /// The listening sockets.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.listener.descriptors()
    }
}

async fn accept(agent: Arc<Agent>, listener: Arc<Listener>, tasks: Arc<Semaphore>) {
    let mut leaving = agent.leaving.subscribe();
    loop {
        let is_open = leaving.wait_for(|leaving| !leaving).await.is_ok();
        // **Invariant:** a place is taken before a connection, so that with all places taken there is none that nobody
        // knows of.
        let Ok(place) = Arc::clone(&tasks).acquire_owned().await else { return };
        if !is_open {
            return;
        }
        let (stream, address) = tokio::select! {
            biased;
            _ = leaving.wait_for(|leaving| *leaving) => continue,
            accepted = listener.accept(|error| trouble(&agent, error)) => accepted,
        };
        let Some(admission) = connection::admit(&agent, address.ip()).await else { continue };
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
