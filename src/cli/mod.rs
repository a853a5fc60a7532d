//! The command line.

pub mod out;
pub mod table;
