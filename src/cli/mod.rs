//! The command line.

pub mod agent;
pub mod dispatcher;
pub mod out;
pub mod table;
