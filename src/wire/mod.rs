//! Every type that crosses a process boundary. No I/O; values come into being only by parsing.
