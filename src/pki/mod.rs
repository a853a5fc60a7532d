//! CA, certificate requests, certificates and trust as pure decisions.
