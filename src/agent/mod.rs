//! The agent front-end.

pub mod pairing;
