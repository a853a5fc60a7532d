//! A site for a test: a dispatcher's directory, agents as real processes, and the means to look at both.
//!
//! Nothing here sleeps for a fixed time and nothing has a fixed port: daemons bind port 0 and announce the address on
//! `NOTIFY_SOCKET`, everything else is waited for with [`eventually`].

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod background;
pub(crate) mod executor;
pub(crate) mod groups;
pub(crate) mod host;
pub(crate) mod http;
pub(crate) mod impostor;
pub(crate) mod late;
pub(crate) mod lease;
pub(crate) mod log;
pub(crate) mod notify;
pub(crate) mod openmetrics;
pub(crate) mod openssl;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod reluctant;
pub(crate) mod site;
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod trace;

use std::time::{Duration, Instant};

pub(crate) use agent::Agent;
pub(crate) use process::run;
pub(crate) use site::Site;

/// How long anything may take before its test fails. Far more than needed, so that a busy machine fails nothing.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Looks until there is something to see.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", DEADLINE.as_secs());
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The program under test: the static one where the environment names it, else the one that cargo built.
pub(crate) fn binary() -> std::path::PathBuf {
    std::env::var_os("CTRL_EXEC_BIN").map_or_else(|| env!("CARGO_BIN_EXE_ctrl-exec").into(), Into::into)
}
