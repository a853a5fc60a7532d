//! What a front-end says to an executor that it started itself, over the socket pair between them
//! (`SOCK_SEQPACKET`, one message a datagram).
//!
//! [`Control::Order`] carries one descriptor: the executor's end of a new order connection
//! ([`super::order`]). It has no answer of its own. [`Control::Reload`] carries none and is answered by one
//! [`Reloaded`].

use serde::{Deserialize, Serialize};

/// Largest control message or answer, in bytes.
pub const LIMIT: usize = 64 * 1024;

/// A message to the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// A new order connection is attached as a descriptor.
    Order,
    /// Read the configuration again; keep the old one if the new is broken.
    Reload,
}

/// The answer to [`Control::Reload`], and the first message after start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reloaded {
    /// The configuration on disk is in force.
    Done,
    /// It is broken, and the old one (if there was one) stays in force.
    Failed {
        /// Every error with its place.
        text: String,
    },
}
