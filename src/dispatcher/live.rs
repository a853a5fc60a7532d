//! What is told of a run while it goes on.

use std::future::Future;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::answer::HostResult;
use super::failure::CallError;
use crate::wire::name::AgentName;
use crate::wire::stream::Channel;

/// What a caller can read that wants output while it is printed.
pub(super) const ACCEPT: &str = concat!("application/vnd.ctrl-exec.run-stream", ", application/json");

/// What happens while a run goes on, in the order in which it happened on its host.
#[derive(Debug)]
pub enum Live {
    /// The script printed.
    Output {
        /// Where.
        host: AgentName,
        /// To which of its streams.
        channel: Channel,
        /// What.
        bytes: Bytes,
    },
    /// The host's result, without the output that was told before.
    Ended(HostResult),
}

/// Does `work` as long as somebody listens to `live`. Its connection ends with it, and with that the script, unless it is
/// a job.
///
/// # Errors
/// Those of `work`, and that nobody listens any more.
pub(super) async fn while_heard<T>(
    live: &mpsc::Sender<Live>,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    if live.is_closed() {
        return Err(CallError::NotAsked);
    }
    tokio::select! {
        biased;
        done = work => done,
        () = live.closed() => Err(CallError::Unheard),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn work_ends_with_its_last_listener_and_is_not_begun_without_one() {
        let (live, mut listener) = mpsc::channel(1);
        assert_eq!(while_heard(&live, ready(Ok(1))).await.unwrap(), 1);
        let (ended, ()) = tokio::join!(while_heard(&live, pending::<Result<(), _>>()), async { listener.close() });
        assert!(matches!(ended, Err(CallError::Unheard)), "{ended:?}");
        assert!(matches!(while_heard(&live, ready(Ok(1))).await, Err(CallError::NotAsked)));
    }
}
