//! Which executor an agent has, as somebody without root's rights can know it: that depends on who started the agent.

use crate::agent::orders::Kinship;
use crate::conf::agent::Settings;
use crate::sys::listening;
use crate::sys::user;

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is as [`Kinship`] says.
    Sure,
    /// As that says of an agent that this user starts; if root starts it, it has a root executor.
    IfStartedHere,
    /// An agent seems to run, which this user did not start.
    Not,
}

/// Looks. `said`: it was said that the agent does without a root executor.
pub(super) fn look(kinship: &Kinship, settings: &Settings, said: bool) -> Known {
    if *kinship != Kinship::Private || said || user::is_root() {
        return Known::Sure;
    }
    let sockets = if *settings.port == 0 { Vec::new() } else { listening::on(*settings.port).unwrap_or_default() };
    // An agent that has given up root does not let its own account look into it either.
    if sockets.iter().any(|socket| socket.holder().is_none()) { Known::Not } else { Known::IfStartedHere }
}

/// Why it is not known.
pub(super) fn unknown(settings: &Settings) -> String {
    format!(
        "whoever listens on port {} was not started by this user: if it is the agent, its executor may be a root executor",
        *settings.port
    )
}

/// What to do about it.
pub(super) const HINT: &str =
    "run it as root, with sudo; or, with --unprivileged, for an agent without a root executor";
