//! Pairing, the dispatcher's end: the listener, the queue's other side, and the operator's answers.
//!
//! A [`session::Session`] listens while pairing mode is on. Each connection is one task: handshake, exchange, place in
//! the queue, answer. The operator answers with [`decide::approve`] and [`decide::deny`], in another process or at the
//! session's own prompt; both leave an answer in the queue, which the connection's task delivers.
//!
//! # Two forms
//!
//! | form | told by | code | who is accepted |
//! |---|---|---|---|
//! | strong | ALPN `ctrl-exec-pair/2` over TLS 1.3 | `123-4567`, binds both ends ([`crate::pki::code`]) | always |
//! | original | no ALPN | `123456`, covers the request only | with `--original` or `pairing_original = yes` |
//!
//! # What must not happen, and what stops it
//!
//! - *An agent registered that never got its certificate*: the record is written when the agent says that it has stored
//!   everything; in the original's form, which has no such word, when the whole answer was written.
//! - *An approval after the window closed*: a request lives in the queue only as long as its connection's task, and the
//!   session's end ends all of them.
//! - *A relay that tries until two codes match*: commitments that never open and requests that go away unanswered are
//!   counted, see [`admission`].
//! - *A stranger who stalls the listener*: nothing is awaited in the accept loop but the next connection; handshake and
//!   exchange have deadlines, and each address has few places.

pub mod admission;
pub mod advice;
pub mod background;
mod connection;
pub mod decide;
mod original;
pub mod prompt;
pub mod session;
mod shared;
pub mod sign;
mod strong;
mod waiting;

#[cfg(test)]
mod tests;
