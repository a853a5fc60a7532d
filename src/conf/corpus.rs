//! Files as an installation of the original has them load without an error.

use super::agent::{self, load};
use super::{Root, Source, dispatcher};
use crate::wire::name::ScriptName;

fn source(name: &str, text: &str) -> Source {
    Source::new(format!("/etc/{name}"), text)
}

#[test]
fn the_originals_agent_files_load() {
    let agent = source("agent.conf", include_str!("../../tests/old_state/agent.conf"));
    let scripts = source("scripts.conf", include_str!("../../tests/old_state/scripts.conf"));
    let agent::Loaded { settings, allowlist, warnings } = load(&agent, &scripts, &Root::default()).unwrap();
    assert_eq!((*settings.port, settings.profiles.len(), settings.tags.len()), (7443, 5, 4));
    assert!(settings.profile_errors().is_ok());
    assert_eq!(settings.tags.get("owner").map(String::as_str), Some("Team A, building #7"));
    assert_eq!(allowlist.len(), 4);
    assert_eq!(allowlist.get(&ScriptName::parse("deploy_cert").unwrap()).unwrap().profile().as_str(), "cert-deploy");
    let warned: Vec<usize> = warnings.iter().filter_map(super::Diagnostic::line).collect();
    assert_eq!(warned.len(), 3, "{warnings}");
}

#[test]
fn the_originals_dispatcher_file_loads() {
    let file = source("ctrl-exec.conf", include_str!("../../tests/old_state/ctrl-exec.conf"));
    let (settings, warnings) = dispatcher::Settings::parse(&file, &Root::default()).unwrap();
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(settings.registry_dir.to_str(), Some("/var/lib/ctrl-exec/agents"));
    assert_eq!((settings.port, *settings.api.port), (7443, 7445));
}
