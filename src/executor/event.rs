//! What the executor has to tell for the audit log. Arguments and output are never part of it.

use std::io;

use crate::wire::name::RequestId;
use crate::wire::order::Order;
use crate::wire::outcome::Outcome;

/// One event, one line.
#[derive(Debug)]
pub enum ExecEvent<'a> {
    /// An order came to its end, whichever.
    Ended {
        /// The order; none if what came was not one.
        order: Option<&'a Order>,
        /// The script's profile, once decided.
        profile: Option<&'a str>,
        /// The script's process id, if a process was made.
        pid: Option<i32>,
        /// How it ended.
        outcome: &'a Outcome,
    },
    /// The outcome of a detached order could not be written to its status file.
    StatusLost {
        /// The order's id.
        request: &'a RequestId,
        /// The system's reason.
        reason: &'a io::Error,
    },
    /// Descendants of a script are still there long after they were killed (another user's, or stuck in the
    /// kernel). The order stays open until they are gone.
    Lingering {
        /// The order's id.
        request: &'a RequestId,
    },
    /// The front-end said something that is not part of the protocol.
    Ignored {
        /// What was wrong with it.
        reason: &'a str,
    },
    /// The configuration was read again and is in force.
    Reloaded,
    /// The configuration was read again and is broken; the old one stays in force.
    ReloadFailed {
        /// Every error with its place.
        text: &'a str,
    },
}

/// Where events go.
pub(super) type Audit<'a> = &'a dyn Fn(&ExecEvent<'_>);
