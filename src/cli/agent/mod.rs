//! `ctrl-exec-agent`: the agent's verbs.

pub mod globals;
pub mod request_pairing;

pub use globals::Globals;
