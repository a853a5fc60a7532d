//! rustls configurations and our own verifiers.
