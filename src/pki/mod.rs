//! CA, certificate requests, certificates and trust as pure decisions.

pub mod code;
