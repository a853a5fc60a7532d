//! One test binary, a file a capability.

mod pairing_ends;
