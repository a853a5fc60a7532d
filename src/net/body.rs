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

/// Reads a whole body of at most `limit` bytes within `patience`.
pub async fn read(mut body: Incoming, limit: usize, patience: Duration) -> Result<Bytes, BodyError> {
    let work = async {
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return drain(&mut body).await;
        }
        let mut taken = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
            if taken.len() + data.len() > limit {
                return drain(&mut body).await;
            }
            taken.extend_from_slice(&data);
        }
        Ok(Bytes::from(taken))
    };
    timeout(patience, work).await.unwrap_or(Err(BodyError::TimedOut))
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

async fn drain(body: &mut Incoming) -> Result<Bytes, BodyError> {
    drain_most(body, DRAIN).await;
    Err(BodyError::TooLarge)
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
