//! Host references as operators type them, to registered agents and the addresses to dial.
//!
//! **Invariant:** nothing but a parsed [`AgentName`] reaches the registry, so that no reference becomes a path; and
//! only registered agents are dialled.

use crate::store::StoreError;
use crate::store::record::{self, AgentRecord, DEFAULT_PORT};
use crate::store::registry::Registry;
use crate::wire::name::AgentName;

/// One agent of a call.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its registry record.
    pub record: AgentRecord,
    /// The port to dial.
    pub port: u16,
}

impl Target {
    /// The registered name.
    #[must_use]
    pub const fn name(&self) -> &AgentName {
        &self.record.hostname
    }

    /// The host to dial.
    #[must_use]
    pub fn address(&self) -> &str {
        self.record.address()
    }

    /// `address:port`, as in logs.
    #[must_use]
    pub fn label(&self) -> String {
        record::target(self.address(), self.port)
    }
}

/// References that name no registered agent.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// None of these is registered; all are listed, and nothing was dispatched.
    #[error("{}: {}", if names.len() == 1 { "unknown agent" } else { "unknown agents" }, names.join(", "))]
    Unknown {
        /// As typed.
        names: Vec<String>,
    },
    /// The registry cannot be read.
    #[error("cannot read the agent registry")]
    Store(#[from] StoreError),
}

/// Resolves every reference, in the order given. `port` stands in for the default port: it applies to an agent whose
/// stored port is 7443 and whose reference names no port.
pub fn resolve(registry: &Registry, references: &[String], port: Option<u16>) -> Result<Vec<Target>, ResolveError> {
    let mut targets = Vec::with_capacity(references.len());
    let mut unknown = Vec::new();
    for reference in references {
        match find(registry, reference, port)? {
            Some(target) => targets.push(target),
            None => unknown.push(reference.clone()),
        }
    }
    if unknown.is_empty() { Ok(targets) } else { Err(ResolveError::Unknown { names: unknown }) }
}

fn find(registry: &Registry, reference: &str, default: Option<u16>) -> Result<Option<Target>, StoreError> {
    let (name, explicit) = split(reference);
    let Ok(name) = AgentName::parse(name) else { return Ok(None) };
    let Some(record) = registry.get(&name)? else { return Ok(None) };
    let port = match (explicit, default) {
        (Some(port), _) => port,
        (None, Some(default)) if record.port == DEFAULT_PORT => default,
        (None, _) => record.port,
    };
    Ok(Some(Target { record, port }))
}

/// `name:port` where the part behind the last colon is a port; else the whole text is the name, and an invalid one.
fn split(reference: &str) -> (&str, Option<u16>) {
    match reference.rsplit_once(':') {
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) if port != 0 => (name, Some(port)),
            _ => (reference, None),
        },
        None => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path().to_owned());
        for (name, port) in [("web", 7443), ("db", 7450)] {
            let record = serde_json::from_value(serde_json::json!({ "hostname": name, "port": port })).unwrap();
            registry.register(&record).unwrap();
        }
        (dir, registry)
    }

    fn ports(references: &[&str], port: Option<u16>) -> Vec<u16> {
        let (_dir, registry) = registry();
        let references: Vec<String> = references.iter().map(ToString::to_string).collect();
        resolve(&registry, &references, port).unwrap().iter().map(|target| target.port).collect()
    }

    #[test]
    fn a_port_comes_from_the_reference_then_the_record_then_the_option() {
        assert_eq!(ports(&["web", "db", "web:99"], None), [7443, 7450, 99]);
        assert_eq!(ports(&["web", "db", "web:99", "web:7443"], Some(8000)), [8000, 7450, 99, 7443]);
    }

    #[test]
    fn every_unknown_reference_is_named_at_once() {
        let (_dir, registry) = registry();
        let references: Vec<String> = ["web", "../agents/web", "nope", "web:0"].map(String::from).into();
        let error = resolve(&registry, &references, None).unwrap_err();
        assert_eq!(error.to_string(), "unknown agents: ../agents/web, nope, web:0");
        let one = resolve(&registry, &["nope".to_owned()], None).unwrap_err();
        assert_eq!(one.to_string(), "unknown agent: nope");
    }
}
