//! Configuration text to typed settings, every error with its place.
//!
//! Pure: [`Source`] is a path and the bytes that were read from it; what comes out is either typed settings with
//! [`Warnings`], or [`ConfErrors`], which hold **all** errors of all files that were given, in file order. Whether a
//! file that a setting names exists, whom it belongs to and what its mode is, is for the room that opens it: a
//! [`Placed`] setting remembers its line for that.
//!
//! | file | entry |
//! |---|---|
//! | `ctrl-exec.conf` | [`dispatcher::Settings::parse`] |
//! | `agent.conf` with `scripts.conf` | [`agent::load`], one snapshot of both |
//! | `agent.conf` alone | [`agent::Settings::parse`] |
//! | `scripts.conf` alone | [`scripts::Allowlist::parse`] |
//!
//! The stages: `lexer` cuts lines into settings and headers, `reader` turns the settings of one section into typed
//! values through the functions of `value`, and `diagnostic` shows what went wrong.

pub mod agent;
mod annotation;
pub mod caps;
pub mod diagnostic;
pub mod dispatcher;
mod endpoint;
mod environment;
mod lexer;
mod names;
mod nearest;
pub mod networks;
mod reader;
mod root;
pub mod scripts;
mod source;
mod value;

pub use diagnostic::{ConfErrors, Diagnostic, Warnings};
pub use endpoint::Endpoint;
pub use names::{Account, ProfileName};
pub use reader::{Lines, Placed};
pub use root::Root;
pub use source::Source;
pub use value::RateLimit;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod properties;
