//! `agent.conf` and `scripts.conf` as one snapshot: both are right, or nothing of either is taken.

use super::{Findings, Root, Settings, Source, Warnings, read};
use crate::conf::diagnostic::ConfErrors;
use crate::conf::scripts::{Allowlist, undefined_profiles};

/// Both files of an agent, checked against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// `agent.conf`.
    pub settings: Settings,
    /// `scripts.conf`.
    pub allowlist: Allowlist,
    /// What is doubtful in either.
    pub warnings: Warnings,
}

/// Reads both files and checks that every script's profile is defined.
///
/// # Errors
/// Everything that is wrong in either, `agent.conf` first.
pub fn load(agent: &Source, scripts: &Source, root: &Root) -> Result<Loaded, ConfErrors> {
    let mut of_agent = Findings::default();
    let settings = read::settings(agent, root, &mut of_agent);
    let mut of_scripts = Findings::default();
    let allowlist = Allowlist::read(scripts, &mut of_scripts);
    // Without a readable agent.conf every profile would look undefined.
    if agent.text().is_ok() {
        let defined = |name: &_| settings.profiles.contains_key(name);
        if let Some(error) = undefined_profiles(&allowlist, (agent.path(), settings.user.another()), defined) {
            of_scripts.push(error);
        }
    }
    let findings = of_agent.sorted().then(of_scripts.sorted());
    findings.judge(()).map(|((), warnings)| Loaded { settings, allowlist, warnings })
}
