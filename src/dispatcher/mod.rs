//! The dispatcher: addressing, connections to agents, fan-out and verbs.

pub mod answer;
pub mod call;
pub mod connect;
mod dial;
pub mod edit;
pub mod failure;
pub mod fanout;
pub mod gate;
pub mod pairing;
pub mod pin;
pub mod ping;
mod pool;
pub mod resolve;
pub mod run;
pub mod setup;
pub mod site;
