//! One test binary, a file a capability.

#[cfg(test)]
mod pairing_ends;
