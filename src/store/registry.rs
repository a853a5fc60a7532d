//! The registry: one file an agent, `<name>.json`.
//!
//! **Invariant:** every change happens under the exclusive lock of `.registry.lock`; if the lock cannot be taken,
//! nothing is changed. An update never brings back a record that was removed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::record::AgentRecord;
use super::{RECORD, StoreError};
use crate::sys::file::{self, Access, LockGuard};
use crate::wire::name::AgentName;

/// Records are read by the operators' group and hold no secret.
const RECORD_MODE: u32 = 0o644;
/// Both root's CLI and the API's user must be able to lock.
const LOCK_MODE: u32 = 0o660;

/// The directory of records.
#[derive(Clone, Debug)]
pub struct Registry {
    dir: PathBuf,
}

/// How a renaming went.
#[derive(Debug)]
pub enum Renamed {
    /// The record under its new name.
    Done(Box<AgentRecord>),
    /// There is no agent of the old name.
    Missing,
    /// There is another agent of the new name.
    Taken,
}

/// Every readable record, sorted by name, and what could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// Records, bytewise by name.
    pub records: Vec<AgentRecord>,
    /// Files that are no records: to be reported, not hidden.
    pub broken: Vec<StoreError>,
}

impl Registry {
    /// The registry in this directory, which need not exist yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The record of this agent, if it is registered.
    pub fn get(&self, name: &AgentName) -> Result<Option<AgentRecord>, StoreError> {
        match read(&self.path(name), name) {
            Err(StoreError::File(error)) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// All records.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let entries = match file::list_dir(&self.dir) {
            Err(error) if error.is_not_found() => return Ok(Listing::default()),
            other => other?,
        };
        let name = |entry: &OsString| AgentName::parse(entry.to_str()?.strip_suffix(".json")?).ok();
        let mut names: Vec<AgentName> = entries.iter().filter_map(name).collect();
        names.sort();
        let mut listing = Listing::default();
        for name in names {
            match self.get(&name) {
                Ok(Some(record)) => listing.records.push(record),
                Ok(None) => {}
                Err(error) if error.is_permission_denied() => return Err(error),
                Err(error) => listing.broken.push(error),
            }
        }
        Ok(listing)
    }

    /// Registers an agent; a record of the same name is replaced and returned.
    pub fn register(&self, record: &AgentRecord) -> Result<Option<AgentRecord>, StoreError> {
        let _lock = self.lock()?;
        // A broken predecessor is no reason to refuse its replacement.
        let previous = self.get(&record.hostname).unwrap_or(None);
        self.write(record)?;
        Ok(previous)
    }

    /// Changes a record under the lock; `None` where there is no such agent.
    pub fn update(
        &self,
        name: &AgentName,
        change: impl FnOnce(&mut AgentRecord),
    ) -> Result<Option<AgentRecord>, StoreError> {
        let _lock = self.lock()?;
        let Some(mut record) = self.get(name)? else { return Ok(None) };
        change(&mut record);
        record.hostname = name.clone();
        self.write(&record)?;
        Ok(Some(record))
    }

    /// Changes a record and gives it another name, under one lock. The new file is there before the old one goes, so
    /// that nothing is lost in between; a record left under both names is put right by doing it again.
    pub fn rename(
        &self,
        old: &AgentName,
        new: &AgentName,
        change: impl FnOnce(&mut AgentRecord),
    ) -> Result<Renamed, StoreError> {
        let _lock = self.lock()?;
        let Some(mut record) = self.get(old)? else { return Ok(Renamed::Missing) };
        if let Some(other) = self.get(new)?
            && (record.reqid.is_empty() || other.reqid != record.reqid)
        {
            return Ok(Renamed::Taken);
        }
        change(&mut record);
        record.hostname = new.clone();
        self.write(&record)?;
        file::remove(&self.path(old))?;
        Ok(Renamed::Done(Box::new(record)))
    }

    /// Removes a record and returns it; `None` where there is no such agent.
    pub fn remove(&self, name: &AgentName) -> Result<Option<AgentRecord>, StoreError> {
        let _lock = self.lock()?;
        let Some(record) = self.get(name)? else { return Ok(None) };
        file::remove(&self.path(name))?;
        Ok(Some(record))
    }

    fn lock(&self) -> Result<LockGuard, StoreError> {
        file::create_dir(&self.dir, 0o2770)?;
        Ok(file::lock_exclusive(&self.dir.join(".registry.lock"), LOCK_MODE)?)
    }

    fn path(&self, name: &AgentName) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    fn write(&self, record: &AgentRecord) -> Result<(), StoreError> {
        let path = self.path(&record.hostname);
        let text =
            serde_json::to_string(record).map_err(|source| StoreError::Malformed { path: path.clone(), source })?;
        Ok(file::write_atomic(&path, text.as_bytes(), Access::mode(RECORD_MODE))?)
    }
}

/// The file name is the key: a record copied by hand under another name answers to that name, and one without a name
/// has this one.
fn read(path: &Path, name: &AgentName) -> Result<AgentRecord, StoreError> {
    let bytes = file::read_bounded(path, RECORD)?;
    let named = |mut fields: Map<String, Value>| {
        fields.insert("hostname".to_owned(), name.as_str().into());
        serde_json::from_value(Value::Object(fields))
    };
    let record = serde_json::from_slice(&bytes).and_then(named);
    record.map_err(|source| StoreError::Malformed { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> AgentRecord {
        serde_json::from_value(serde_json::json!({ "hostname": name })).unwrap()
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::new(dir.path().join("agents"));
        (dir, registry)
    }

    #[test]
    fn an_update_never_brings_back_a_removed_agent() {
        let (_dir, registry) = registry();
        let name = AgentName::parse("a").unwrap();
        registry.register(&record("a")).unwrap();
        assert!(registry.remove(&name).unwrap().is_some());
        assert!(registry.update(&name, |record| record.expiry = "x".into()).unwrap().is_none());
        assert!(registry.get(&name).unwrap().is_none());
    }

    #[test]
    fn a_broken_record_is_reported_and_hides_no_other() {
        let (_dir, registry) = registry();
        for name in ["b", "a"] {
            registry.register(&record(name)).unwrap();
        }
        #[expect(clippy::disallowed_methods, reason = "the test writes a broken file on purpose")]
        std::fs::write(registry.dir().join("c.json"), "{").unwrap();
        let listing = registry.list().unwrap();
        assert_eq!(listing.records.iter().map(|r| r.hostname.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(listing.broken.len(), 1);
    }

    #[test]
    fn concurrent_updates_lose_nothing() {
        let (_dir, registry) = registry();
        registry.register(&record("a")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let add = |record: &mut AgentRecord| record.paired.push('x');
                        registry.update(&AgentName::parse("a").unwrap(), add).unwrap();
                    }
                });
            }
        });
        assert_eq!(registry.get(&AgentName::parse("a").unwrap()).unwrap().unwrap().paired.len(), 100);
    }

    #[test]
    fn a_missing_registry_is_an_empty_one() {
        let (_dir, registry) = registry();
        assert!(registry.list().unwrap().records.is_empty());
    }
}
