//! A private executor, which is started anew whenever it is missed.

use std::ffi::OsString;
use std::process::ExitStatus;
use std::sync::PoisonError;

use tokio::sync::{Mutex, Notify};

use super::line::{Fresh, Line};
use super::{ExecutorError, Orders, Way};
use crate::sys::process::{Family, Pid};

/// One after the other.
#[derive(Debug)]
pub(super) struct Private {
    arguments: Vec<OsString>,
    pub(super) family: Family,
    pub(super) line: Mutex<Option<Line>>,
    /// How those have ended that nobody has asked to, until somebody is told.
    ended: std::sync::Mutex<Vec<Option<ExitStatus>>>,
    /// There is another line, or an end to tell of.
    changed: Notify,
}

impl Private {
    /// None is started yet.
    pub(super) fn new(arguments: Vec<OsString>, family: Family) -> Self {
        let (line, ended, changed) = (Mutex::default(), std::sync::Mutex::default(), Notify::new());
        Self { arguments, family, line, ended, changed }
    }

    /// Starts one.
    pub(super) async fn start(&self, line: &mut Option<Line>) -> Result<(), ExecutorError> {
        *line = Some(Fresh::start(&self.arguments).map_err(ExecutorError::Start)?.ready().await?);
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing more is to be had of this one.
    pub(super) async fn lose(&self, line: &mut Option<Line>) {
        let Some(lost) = line.take() else { return };
        let how = lost.status().await;
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(how);
        self.changed.notify_one();
    }

    /// Waits until one has ended that nobody has asked to. How it has, if that is known.
    pub(super) async fn ends(&self) -> Option<ExitStatus> {
        loop {
            if let Some(how) = self.ended.lock().unwrap_or_else(PoisonError::into_inner).pop() {
                return how;
            }
            let end = self.line.lock().await.as_ref().map(Line::end);
            let Some(end) = end else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = end.comes() => {}
                () = self.changed.notified() => continue,
            }
            let mut line = self.line.lock().await;
            // Another may have taken its place meanwhile.
            if line.as_ref().is_some_and(Line::is_over) {
                self.lose(&mut line).await;
            }
        }
    }
}

impl Orders {
    /// Whose the runs of a private executor are; of another's, the kernel sees to it that nobody is left.
    #[must_use]
    pub const fn family(&self) -> Option<Family> {
        if let Way::Private(private) = &self.way { Some(private.family) } else { None }
    }

    /// The process of a private executor, if there is one now.
    pub async fn service(&self) -> Option<Pid> {
        let Way::Private(private) = &self.way else { return None };
        private.line.lock().await.as_ref().and_then(Line::process)
    }

    /// Waits until a private executor has ended that nobody has asked to. How it has, if that is known.
    pub async fn service_ends(&self) -> Option<ExitStatus> {
        let Way::Private(private) = &self.way else { return std::future::pending().await };
        private.ends().await
    }
}
