//! `edit-agent` and `unpair`: changes to the registry without a word to the agent.

use std::net::IpAddr;

use super::site::Site;
use crate::audit::{Event, Level};
use crate::store::StoreError;
use crate::store::record::{AgentRecord, Lookup};
use crate::store::registry::Renamed;
use crate::wire::name::AgentName;
use crate::wire::pair::LookupBy;

/// What to change.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The new name.
    pub rename: Option<AgentName>,
    /// The new address.
    pub ip: Option<IpAddr>,
    /// The new port.
    pub port: Option<u16>,
    /// The new way to find it.
    pub lookup_by: Option<LookupBy>,
}

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// There is no such agent.
    #[error("No registry entry for '{0}'")]
    Missing(AgentName),
    /// The new name is taken.
    #[error("agent '{0}' already exists")]
    Taken(AgentName),
    /// The registry.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes a record. The certificate's own name stays in it, so that renaming and pin are independent.
pub fn edit(site: &Site, name: &AgentName, changes: &Changes) -> Result<AgentRecord, EditError> {
    let change = |record: &mut AgentRecord| {
        record.cert_cn.get_or_insert_with(|| name.to_string());
        if let Some(ip) = changes.ip {
            record.ip = ip.to_string();
        }
        record.port = changes.port.unwrap_or(record.port);
        record.lookup_by = changes.lookup_by.map_or(record.lookup_by, Lookup);
    };
    let renamed = changes.rename.as_ref().filter(|new| *new != name);
    let record = match renamed {
        None => site.registry.update(name, change)?.ok_or_else(|| EditError::Missing(name.clone()))?,
        Some(new) => match site.registry.rename(name, new, change)? {
            Renamed::Done(record) => *record,
            Renamed::Missing => return Err(EditError::Missing(name.clone())),
            Renamed::Taken => return Err(EditError::Taken(new.clone())),
        },
    };
    let event = Event::new(Level::Info, "edit-agent")
        .field("AGENT", &record.hostname)
        .maybe("IP", changes.ip)
        .maybe("LOOKUP_BY", changes.lookup_by.map(LookupBy::as_str))
        .maybe("PORT", changes.port)
        .maybe("RENAMED_FROM", renamed.map(|_| name));
    site.log.emit(event);
    Ok(record)
}

/// Removes an agent's record and returns it.
pub fn unpair(site: &Site, name: &AgentName) -> Result<AgentRecord, EditError> {
    let record = site.registry.remove(name)?.ok_or_else(|| EditError::Missing(name.clone()))?;
    let event = Event::new(Level::Info, "unpair").field("AGENT", name);
    site.log.emit(event.field("EXPIRY", &record.expiry));
    Ok(record)
}
