//! What is known of a script's runs before anybody asks for one.

use std::path::Path;

use super::decide::{Plan, decide};
use super::ground::{self, Tried};
use super::host::HostFacts;
use super::offer::{self, Offer};
use super::policy::Policy;
use crate::sys::file;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Mode, Order};
use crate::wire::refusal::Refusal;

/// The decision about a script, whatever the arguments of a call; the policy must not count them
/// ([`Policy::whatever_the_arguments`]).
///
/// # Errors
/// As of any order.
pub(super) fn decided(name: ScriptName, policy: &Policy, facts: &dyn HostFacts) -> Result<Plan, Refusal> {
    let order = Order::new(name, vec![], RequestId::from_random([0; 8]), Mode::Attached);
    order.and_then(|order| decide(&order, policy, facts))
}

/// Why this host refuses every run of the plan's profile, if it does: how such a run ends, and the key that cannot be applied,
/// and why not.
///
/// **Invariant:** as [`start`](super::start), the caller has one thread.
pub(super) fn refused_here(plan: &Plan, offer: &Offer) -> Option<(&'static str, String)> {
    let confinement = plan.confinement()?;
    let lacking = offer::applicable(confinement, offer).err();
    let lacking = lacking.map(|lacking| ("not-confined", format!("{}: {}", lacking.key, lacking.why)));
    lacking.or_else(|| ground::places(confinement, file::path_of(plan.program())).err())
}

/// Whether a call of this script would start it, as an explanation judges it: by the decision, by what the host can apply, and
/// by what stands on its disks. `None`: this user cannot find out.
///
/// **Invariant:** as [`start`](super::start), the caller has one thread.
///
/// # Errors
/// What would stop it.
pub fn starts(name: &ScriptName, policy: &Policy, facts: &dyn HostFacts, offer: &Offer) -> Option<Result<(), String>> {
    let plan = match decided(name.clone(), policy, facts) {
        Ok(plan) => plan,
        Err(refusal) => return Some(Err(refusal.text().to_owned())),
    };
    if let Some((_, why)) = refused_here(&plan, offer) {
        return Some(Err(why));
    }
    match ground::found(&plan) {
        Ok(Tried::All) => Some(Ok(())),
        Ok(Tried::Not(_)) => None,
        Err(failed) => {
            let text = failed.text();
            let hint = if text.ends_with("Permission denied") { outside(&plan) } else { "" };
            Some(Err(text + hint))
        }
    }
}

/// What may be the matter with a file that may not be executed.
fn outside(plan: &Plan) -> &'static str {
    let bound = plan.confinement().is_some_and(|confinement| confinement.profile().readable.is_some());
    if bound { " (is it in the profile's 'readable'?)" } else { "" }
}

/// Whether a script can be executed as it stands, were it not for its profile.
#[must_use]
pub fn is_fit(program: &Path, directory: &Path) -> bool {
    file::is_executable(program) && ground::unstartable(program, directory).is_none()
}
