//! The agent front-end.
