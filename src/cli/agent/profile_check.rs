//! What `self-check` says of the profiles.

use crate::cli::out;
use crate::conf::agent::{Loaded, Profile};
use crate::executor::{OnDisk, meanings};

/// Whether a root executor would take the profiles; and what each dangerous capability costs, which is no fault where
/// the profile says that it is meant.
pub(super) fn profiles(loaded: &Loaded, applied: bool) -> bool {
    loaded.settings.profiles.values().for_each(costs);
    // Without a root executor no profile is applied, so none can do harm.
    if !applied {
        return true;
    }
    let accounts = loaded.settings.profile_errors();
    let paths = loaded.settings.writable_errors(loaded.allowlist.file(), |path| meanings(path, &OnDisk));
    let mut good = true;
    for errors in [accounts, paths].into_iter().filter_map(Result::err) {
        out::error(errors.to_string());
        good = false;
    }
    out::line(if good { "  Profiles OK" } else { "  Profiles: the executor refuses them" });
    good
}

fn costs(profile: &Profile) {
    for cap in &profile.caps {
        if let Some(cost) = cap.cost() {
            out::line(format!("  Profile '{}': {cap} undoes the confinement: {cost}", profile.name));
        }
    }
}
