//! Listeners, connection limits, HTTP head and body limits.
//!
//! What a stranger may cost is decided here: every accepted connection holds a [`slots::Slot`] until it has proven
//! who it is, every address has a budget in [`rate::Limiter`], every read has a deadline.

pub mod body;
pub mod crowd;
pub mod exchange;
pub mod handshakes;
pub mod listen;
pub mod local;
pub mod rate;
pub mod serve;
mod shared;
pub mod slots;
