//! Request bodies within a size and a time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

/// How much of a body that is refused for its size is still read and thrown away, so that the client can read the
/// refusal before it meets a reset (RFC 9112 9.6).
const DRAIN: u64 = 16 * 1024 * 1024;

/// How long a client of such a body may say nothing: one that waits for the refusal before it sends should not wait
/// long.
const SILENCE: Duration = Duration::from_secs(1);

/// How long a client that is refused whatever it says may take to say it.
const FAREWELL: Duration = Duration::from_secs(5);

/// A body that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is larger than the limit.
    #[error("request too large")]
    TooLarge,
    /// It did not arrive in time.
    #[error("request timed out")]
    TimedOut,
    /// The connection broke, or the framing is wrong.
    #[error("request incomplete")]
    Broken,
}

/// A body on its way, and what has come of it.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    taken: Vec<u8>,
    limit: usize,
    too_large: bool,
}

impl Arriving {
    /// One of at most `limit` bytes.
    #[must_use]
    pub const fn new(body: Incoming, limit: usize) -> Self {
        Self { body, taken: Vec::new(), limit, too_large: false }
    }

    /// The whole body, if all of it is there.
    pub async fn at_once(&mut self) -> Option<Result<Bytes, BodyError>> {
        tokio::select! {
            biased;
            body = self.whole(|_| {}) => Some(body),
            () = std::future::ready(()) => None,
        }
    }

    /// Waits for the whole body, at most for `patience`. `holds` hears how many bytes this takes meanwhile.
    pub async fn within(&mut self, patience: Duration, holds: impl Fn(usize)) -> Result<Bytes, BodyError> {
        timeout(patience, self.whole(holds)).await.unwrap_or(Err(BodyError::TimedOut))
    }

    /// **Invariant:** nothing that has come is lost where this is dropped, and begun anew.
    async fn whole(&mut self, holds: impl Fn(usize)) -> Result<Bytes, BodyError> {
        self.too_large |= self.body.size_hint().lower() > u64::try_from(self.limit).unwrap_or(u64::MAX);
        while !self.too_large {
            let Some(frame) = self.body.frame().await else { return Ok(Bytes::from(std::mem::take(&mut self.taken))) };
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            self.too_large = self.taken.len() + data.len() > self.limit;
            if !self.too_large {
                self.take(&data);
                holds(self.taken.capacity());
            }
        }
        self.taken = Vec::new();
        holds(0);
        drain_most(&mut self.body, DRAIN).await;
        Err(BodyError::TooLarge)
    }

    /// Room grows with what comes, and never beyond the limit.
    fn take(&mut self, data: &[u8]) {
        let (held, room) = (self.taken.len(), self.taken.capacity());
        if held + data.len() > room {
            let wanted = (room * 2).min(self.limit).max(held + data.len());
            self.taken.reserve_exact(wanted - held);
        }
        self.taken.extend_from_slice(data);
    }

    /// What is not wanted any more: see [`discard`].
    pub async fn discard(self) {
        let Self { body, taken, limit, .. } = self;
        drop(taken);
        discard(body, limit).await;
    }
}

/// Reads away a body of about `limit` bytes that nobody wants, so that the client can read the answer before it meets a
/// reset. A larger or slower one is given up.
pub async fn discard(mut body: Incoming, limit: usize) {
    if !body.is_end_stream() {
        let work = drain_most(&mut body, u64::try_from(limit).unwrap_or(u64::MAX));
        // Too slow: its client has to do without the refusal.
        let _ = timeout(FAREWELL, work).await;
    }
}

async fn drain_most(body: &mut Incoming, mut left: u64) {
    while let Ok(Some(Ok(frame))) = timeout(SILENCE, body.frame()).await {
        let size = frame.data_ref().map_or(0, |data| u64::try_from(data.len()).unwrap_or(u64::MAX));
        left = left.saturating_sub(size);
        if left == 0 {
            break;
        }
    }
}
