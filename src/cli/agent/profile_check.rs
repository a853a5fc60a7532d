//! What `self-check` says of the profiles.

use super::kernel_check;
use crate::agent::orders::Kinship;
use crate::agent::snapshot::Places;
use crate::cli::out;
use crate::conf::agent::{Loaded, Profile};
use crate::executor::{OnDisk, Policy, meanings};

/// Whether a root executor would take the profiles; and what may undo a profile costs, which is no fault where
/// the profile says that it is meant.
pub(super) fn profiles(loaded: &Loaded, kinship: &Kinship, places: &Places) -> bool {
    loaded.settings.profiles.values().for_each(costs);
    // Without a root executor no profile is applied, so none can do harm.
    if !kinship.applies_profiles() {
        return true;
    }
    let accounts = loaded.settings.profile_errors();
    let paths = loaded.settings.writable_errors(loaded.allowlist.file(), |path| meanings(path, &OnDisk));
    let mut good = true;
    for errors in [accounts, paths].into_iter().filter_map(Result::err) {
        out::error(errors.to_string());
        good = false;
    }
    // The executor's own word, which has more to say where these two are content.
    if let (true, Err(errors)) = (good, Policy::judged(loaded, &places.allowlist, kernel_check::rights(kinship))) {
        out::error(errors);
        good = false;
    }
    if !good {
        out::line("  Profiles: the executor refuses them");
    }
    good
}

/// Says that nothing is wrong with the profiles, when all that is known of them was found good.
pub(super) fn passed(kinship: &Kinship) {
    if kinship.applies_profiles() {
        out::line("  Profiles OK");
    }
}

fn costs(profile: &Profile) {
    for cost in profile.undoing().into_iter().chain(profile.undoing_network()) {
        out::line(format!("  Profile '{}': {cost}", profile.name));
    }
}
