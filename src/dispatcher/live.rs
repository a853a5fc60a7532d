//! What is told of a run while it goes on.

use bytes::Bytes;

use super::answer::HostResult;
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
