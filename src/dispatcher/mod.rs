//! The dispatcher: addressing, connections to agents, fan-out and verbs.

pub mod answer;
pub mod call;
pub mod cancel;
pub mod connect;
pub mod detached;
mod dial;
pub mod edit;
pub mod failure;
pub mod fanout;
pub mod follow;
pub mod gate;
pub mod live;
pub mod pairing;
pub mod pin;
pub mod ping;
mod pool;
pub mod record;
pub mod resolve;
pub mod run;
pub mod setup;
pub mod site;
pub mod status;
