//! Registry and pairing queue: files, atomic and locked.
