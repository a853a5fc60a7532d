//! The command line: definitions, tables, JSON. The only room that prints.
//!
//! A verb is a file with its clap arguments and one function that returns how the process ends.

pub mod agent;
pub mod demo;
pub mod dispatcher;
pub mod executor;
pub mod out;
pub mod parse;
pub mod role;
pub mod table;
