//! `ctrl-exec`: the dispatcher's verbs.

pub mod approve;
pub mod deny;
pub mod globals;
pub mod list_requests;
pub mod pairing_mode;
mod pairing_prompt;

pub use globals::Globals;
