//! The agent front-end: gate, verbs, pairing client. Unprivileged; the only network listener on a managed host.
//!
//! A connection passes, in this order: address list and rate limit (before any handshake cost), handshake with a
//! mandatory client certificate; and each request on it: revocation, trust map, allowlist, argument contract, hook. All of
//! it is judged in [`gate`]; a verb takes what only that can have let through.
//!
//! Nothing is run here: every run is an order to the executor.

mod advice;
pub mod answer;
mod bereft;
pub mod call;
pub mod cancel;
mod canonical;
pub mod capabilities;
pub mod collect;
pub mod connection;
pub mod contract;
pub mod detached;
pub mod digests;
pub mod door;
mod excerpt;
pub mod execute;
pub mod explain;
pub mod explain_peer;
pub mod export;
pub mod follow;
pub mod gate;
pub mod jobs;
pub mod kept;
mod large;
pub mod list_file;
pub mod metrics;
pub mod older_trust;
pub mod order;
pub mod orders;
pub mod own_certificate;
pub mod pairing;
pub mod ping;
pub mod present;
pub mod promote;
pub mod pump;
pub mod renew;
pub mod rest;
pub mod result;
pub mod rotate;
pub mod route;
pub mod run;
pub mod self_ping;
pub mod serve;
pub mod sidecar;
mod signals;
pub mod snapshot;
mod spool;
pub mod state;
pub mod strangers;
pub mod stream;
pub mod sweep;
pub mod unapplied;
pub mod under_way;
pub mod unread;
mod unrecorded;
pub mod upgrade;
pub mod words;
