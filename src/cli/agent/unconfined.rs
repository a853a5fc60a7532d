//! What an agent without a root executor says about its profiles, when it starts and when it is checked.

use crate::agent::unapplied::{self, Unapplied};
use crate::conf::ProfileName;
use crate::conf::agent::Loaded;
use crate::sys::user;

/// A line that says what scripts run with, and one for each profile of which something has no effect. None where nobody
/// could expect anything else: no such profile, and no script that names one.
pub(super) fn warning(loaded: &Loaded) -> Vec<String> {
    let profiles = unapplied::of(&loaded.settings);
    let named = || loaded.allowlist.iter().any(|script| script.profile().as_str() != ProfileName::DEFAULT);
    if profiles.is_empty() && !named() {
        return Vec::new();
    }
    let (uid, _) = user::current();
    let first = format!(
        "without a root executor every script runs with this agent's own rights (uid {uid}); of its profile, timeout and \
         kill_grace are applied and nothing else"
    );
    let rest = profiles.into_iter().map(|Unapplied { entry, message }| format!("{entry}: {message}"));
    std::iter::once(first).chain(rest).collect()
}
