//! One test binary, a file a capability.
