//! `run`: from the command line through dispatcher, agent and executor to a script and back.

mod arguments;
mod ending;
mod hosts;
mod names;
mod output;
mod status;
mod stdin;
