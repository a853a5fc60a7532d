//! What is the agent's and not there: it cannot be hidden, so that a script that may write there would make it.

use std::path::{Path, PathBuf};

use super::host::HostFacts;
use super::reach::unknown;

/// Something of the agent's own that is not there, outside of every hidden directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unmade {
    /// As configured.
    pub(super) name: PathBuf,
    /// Where it would be.
    pub(super) place: PathBuf,
}

impl Unmade {
    /// Whether root alone could make it, by the modes of the directories.
    pub(super) fn is_roots(&self, facts: &dyn HostFacts) -> bool {
        // It looks at everything on the way, and says first what it finds.
        matches!(facts.resolve_trusted(&self.name, None), Err(error) if error.is_not_found())
    }
}

/// A path at which nothing was found, and whether no link is on the way.
pub(super) type Missing<'a> = (&'a PathBuf, bool);

/// Those of the missing ones that are outside of what is hidden.
///
/// # Errors
/// Which cannot be found out about, and why.
pub(super) fn outside(
    missing: &[Missing<'_>],
    hidden: &[PathBuf],
    facts: &dyn HostFacts,
) -> Result<Vec<Unmade>, String> {
    let covered = |place: &Path| hidden.iter().any(|hidden| place.starts_with(hidden));
    let mut all: Vec<Unmade> = Vec::new();
    // Most of the time its words tell.
    for (own, _) in missing.iter().filter(|(own, plain)| !(*plain && covered(own))) {
        if all.iter().any(|known| own.starts_with(&known.name)) {
            continue;
        }
        let place = facts.place_if_made(own).map_err(|error| unknown(own, &error))?.place;
        if !covered(&place) {
            all.push(Unmade { name: (*own).clone(), place });
        }
    }
    Ok(all)
}
