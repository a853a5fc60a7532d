//! Configuration text to typed settings, every error with its place.
