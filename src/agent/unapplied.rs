//! What of the profiles has no effect where there is no root executor: most needs rights to give away, and the rest is
//! not applied alone, lest half a confinement pass for one. Runs go on without it, as the original's do.

use super::orders::Orders;
use crate::audit::{Event, Level, Logger};
use crate::conf::agent::{Profile, Settings};

/// A profile of which something has no effect.
#[derive(Debug)]
pub struct Unapplied {
    /// Where it stands: `path:line`.
    pub entry: String,
    /// Its name and its keys without effect, for people.
    pub message: String,
}

/// Every profile that sets something that only a root executor applies.
#[must_use]
pub fn of(settings: &Settings) -> Vec<Unapplied> {
    let told = |profile: &Profile| {
        let keys = profile.only_as_root();
        let message = format!("Profile '{}': not applied without a root executor: {}", profile.name, keys.join(", "));
        let entry = format!("{}:{}", settings.file.display(), profile.line());
        (!keys.is_empty()).then_some(Unapplied { entry, message })
    };
    settings.profiles.values().filter_map(told).collect()
}

/// Says so in the log, where these orders go to no root executor.
pub fn log(log: &Logger, orders: &Orders, settings: &Settings) {
    if orders.applies_profiles() {
        return;
    }
    for Unapplied { entry, message } in of(settings) {
        log.emit(Event::new(Level::Warning, "config-warn").field("ENTRY", entry).field("MSG", message));
    }
}
