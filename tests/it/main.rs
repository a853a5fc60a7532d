//! One test binary, a file a capability. Every test drives the real program as processes on loopback, with everything
//! in a temporary directory.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a step of the harness that fails is a test that fails; it starts processes and writes plain files"
)]

mod audit;
mod bereft;
mod capabilities;
mod closed;
mod contract;
mod crash;
mod deadlines;
mod demo;
mod deserted;
mod durable;
mod examples;
mod executor;
mod executor_own;
mod executor_service;
mod explain;
mod explain_ground;
mod explain_undone;
mod explain_verbs;
mod explain_whose;
mod explained;
mod faults;
mod gate;
mod handover;
mod harness;
mod homes;
mod hook;
mod hostile;
mod identity;
mod incapable;
mod inherited;
mod jobs;
mod kept;
mod log_table;
mod malformed;
mod memory;
mod metrics;
mod mounts;
mod names;
mod old_state;
mod older_trust;
mod orders;
mod original;
mod outcome;
mod owners;
mod pairing;
mod pairing_ends;
mod pin;
mod ping;
mod promote;
mod rate;
mod reader;
mod registry;
mod reload;
mod reload_times;
mod renew;
mod resume;
mod rotate;
mod run;
mod self_check;
mod self_check_host;
mod self_check_start;
mod serve;
mod setup;
mod shares;
mod spare;
mod stalled;
mod stream;
mod stuck_log;
mod trace;
mod trust;
mod units;
