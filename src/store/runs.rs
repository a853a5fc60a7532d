//! The dispatcher's run records, in the original's form: one file a run, `<request id>.json`.
//!
//! A record is rewritten only when something in it has changed, so that asking for it does not keep it alive.
//!
//! The record of detached jobs is on disk before anybody hears of them: without it nobody finds them again. That of a run
//! that was waited for tells what its caller has seen, and is left to the kernel to write: should the host crash in the
//! next moments, it may be lost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{StoreError, loose};
use crate::sys::file::{self, Access};
use crate::wire::name::RequestId;

/// How long a record is kept after its last change, as by the original.
pub const RETENTION: Duration = Duration::from_hours(24);

/// Results may hold secrets.
const MODE: u32 = 0o640;
const DIR_MODE: u32 = 0o750;
const LOCK_MODE: u32 = 0o660;
/// Largest record read, in bytes.
const RECORD: usize = 1 << 30;
/// Time between two looks for records that are too old.
const PAUSE: Duration = Duration::from_mins(10);
/// Its age is the time since the last of them.
const MARK: &str = ".purged";

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum RunRecord {
    /// A run that was waited for.
    Sync(SyncRun),
    /// Detached jobs.
    Async(AsyncRun),
}

/// Who asked for a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
    /// The name that was claimed.
    #[serde(default, deserialize_with = "loose::text")]
    pub username: String,
    /// Where from.
    #[serde(default, deserialize_with = "loose::text")]
    pub source_ip: String,
}

/// A run that was waited for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncRun {
    /// Request id; equals the file name.
    #[serde(deserialize_with = "loose::text")]
    pub reqid: String,
    /// The script's name.
    #[serde(default, deserialize_with = "loose::text")]
    pub script: String,
    /// The hosts as they were asked for.
    #[serde(default)]
    pub hosts: Vec<Value>,
    /// Each host's result.
    #[serde(default)]
    pub results: Vec<Value>,
    /// When the last result came, seconds since 1970.
    #[serde(default)]
    pub completed: Value,
    /// Always so.
    #[serde(default)]
    pub complete: Value,
    /// Who asked; absent in records of the original's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// Everything else, kept as it was.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Detached jobs of one script, one on each host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AsyncRun {
    /// Request id; equals the file name, and is the job's on every host.
    #[serde(deserialize_with = "loose::text")]
    pub reqid: String,
    /// The script's name.
    #[serde(default, deserialize_with = "loose::text")]
    pub script: String,
    /// Each host's state: `status`, and what belongs to it.
    #[serde(default)]
    pub hosts: BTreeMap<String, Map<String, Value>>,
    /// When it was submitted, seconds since 1970.
    #[serde(default)]
    pub created: Value,
    /// The hosts whose jobs have no end yet.
    #[serde(default)]
    pub pending: Vec<String>,
    /// Whether there are none.
    #[serde(default)]
    pub complete: Value,
    /// Who asked; absent in records of the original's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submitter: Option<Submitter>,
    /// Everything else, kept as it was.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl AsyncRun {
    /// Brings `pending` and `complete` up to date with the hosts.
    pub fn recount(&mut self) {
        let pending = self.hosts.iter().filter(|(_, host)| is_pending(host));
        self.pending = pending.map(|(name, _)| name.clone()).collect();
        self.complete = self.pending.is_empty().into();
    }
}

/// Whether a host's job has no end yet.
#[must_use]
pub fn is_pending(host: &Map<String, Value>) -> bool {
    matches!(host.get("status").and_then(Value::as_str), Some("accepted" | "running"))
}

/// The directory of records.
#[derive(Clone, Debug)]
pub struct Runs {
    dir: PathBuf,
}

impl Runs {
    /// The records in this directory, which need not exist yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The record of a run, if there is one. One that a crash of the host has left empty is none.
    pub fn get(&self, id: &RequestId) -> Result<Option<RunRecord>, StoreError> {
        let path = self.path(id);
        match file::read_bounded(&path, RECORD) {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Malformed { path, source }),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a record. From time to time it removes those that are too old, too.
    pub fn save(&self, id: &RequestId, record: &RunRecord, now: SystemTime) -> Result<(), StoreError> {
        file::create_dir(&self.dir, DIR_MODE)?;
        self.write(id, record)?;
        let mark = self.dir.join(MARK);
        let age = file::facts(&mark)?.map(|facts| now.duration_since(facts.modified).unwrap_or_default());
        if age.is_none_or(|age| age > PAUSE) {
            file::write_soon(&mark, b"", Access::mode(LOCK_MODE))?;
            self.purge(now)?;
        }
        Ok(())
    }

    /// Changes the record of detached jobs under the lock; written only if the change is one. `None` where there is no
    /// such record.
    pub fn update(&self, id: &RequestId, change: impl FnOnce(&mut AsyncRun)) -> Result<Option<AsyncRun>, StoreError> {
        file::create_dir(&self.dir, DIR_MODE)?;
        let _lock = file::lock_exclusive(&self.dir.join(".lock"), LOCK_MODE)?;
        let Some(RunRecord::Async(old)) = self.get(id)? else { return Ok(None) };
        let mut new = old.clone();
        change(&mut new);
        new.recount();
        if new == old {
            return Ok(Some(old));
        }
        let record = RunRecord::Async(new);
        self.write(id, &record)?;
        let RunRecord::Async(new) = record else { return Ok(None) };
        Ok(Some(new))
    }

    /// Removes records that have not changed for too long, and what killed writes have left.
    pub fn purge(&self, now: SystemTime) -> Result<(), StoreError> {
        file::sweep(&self.dir);
        for name in file::list_dir(&self.dir)? {
            let id = name.to_str().and_then(|name| RequestId::parse(name.strip_suffix(".json")?).ok());
            let Some(path) = id.map(|id| self.path(&id)) else { continue };
            let old = |facts: file::Facts| now.duration_since(facts.modified).is_ok_and(|age| age > RETENTION);
            if file::facts(&path)?.is_some_and(old)
                && let Err(error) = file::remove(&path)
                && !error.is_not_found()
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn write(&self, id: &RequestId, record: &RunRecord) -> Result<(), StoreError> {
        let path = self.path(id);
        let text = serde_json::to_vec(record).map_err(|source| StoreError::Malformed { path: path.clone(), source })?;
        let write = match record {
            RunRecord::Sync(_) => file::write_soon,
            RunRecord::Async(_) => file::write_atomic,
        };
        Ok(write(&path, &text, Access::mode(MODE))?)
    }

    fn path(&self, id: &RequestId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn runs() -> (tempfile::TempDir, Runs) {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().join("runs"));
        (dir, runs)
    }

    fn id(text: &str) -> RequestId {
        RequestId::parse(text).unwrap()
    }

    fn record(id: &str) -> RunRecord {
        let hosts = json!({"web": {"status": "accepted"}, "db": {"status": "busy", "error": "script already running"}});
        let record = json!({"mode": "async", "reqid": id, "script": "x", "hosts": hosts, "created": 1, "kept": true});
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn records_of_the_original_are_read_and_nothing_of_them_is_lost() {
        for text in [
            r#"{"created":1763800000,"complete":false,"mode":"async","pending":["web"],"script":"x","reqid":"ab",
                "hosts":{"web":{"status":"running","fetch_error":"x"},"db":{"status":"done","exit":0,"stdout":"","stderr":""}},
                "submitter":{"username":"me","source_ip":"10.0.0.1"}}"#,
            r#"{"hosts":["web"],"mode":"sync","results":[{"host":"web","exit":0}],"completed":1763800000,"complete":true,
                "reqid":"ab","script":"x","submitter":{"username":null,"source_ip":"::1"}}"#,
        ] {
            let record: RunRecord = serde_json::from_str(text).unwrap();
            let (read, mut want) = (serde_json::to_value(&record).unwrap(), text.parse::<Value>().unwrap());
            if want["submitter"]["username"].is_null() {
                want["submitter"]["username"] = "".into();
            }
            assert_eq!(read, want);
        }
    }

    #[test]
    fn a_record_is_private_and_changes_only_when_something_changed() {
        let (_dir, runs) = runs();
        let now = SystemTime::now();
        runs.save(&id("ab"), &record("ab"), now).unwrap();
        let path = runs.path(&id("ab"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(runs.dir.metadata().unwrap().permissions().mode() & 0o7777, 0o750);
        let first = runs.update(&id("ab"), |_| {}).unwrap().unwrap();
        assert_eq!((first.pending.as_slice(), &first.complete), (&["web".to_owned()][..], &json!(false)));
        let past = now - Duration::from_hours(20);
        File::options().write(true).open(&path).unwrap().set_modified(past).unwrap();
        runs.update(&id("ab"), |_| {}).unwrap().unwrap();
        assert_eq!(path.metadata().unwrap().modified().unwrap(), past);
        let done = |run: &mut AsyncRun| drop(run.hosts.get_mut("web").unwrap().insert("status".into(), "done".into()));
        let last = runs.update(&id("ab"), done).unwrap().unwrap();
        assert_eq!((last.pending.len(), &last.complete, &last.extra["kept"]), (0, &json!(true), &json!(true)));
        assert_ne!(path.metadata().unwrap().modified().unwrap(), past);
        assert!(runs.update(&id("none"), done).unwrap().is_none());
    }

    #[test]
    fn a_record_that_a_crash_left_empty_is_none_and_goes_with_the_others() {
        let (_dir, runs) = runs();
        let (now, sync) = (SystemTime::now(), json!({"mode": "sync", "reqid": "ab", "script": "x", "hosts": ["web"]}));
        let sync: RunRecord = serde_json::from_value(sync).unwrap();
        runs.save(&id("ab"), &sync, now).unwrap();
        assert_eq!(runs.get(&id("ab")).unwrap(), Some(sync));
        File::options().write(true).open(runs.path(&id("ab"))).unwrap().set_len(0).unwrap();
        assert_eq!(runs.get(&id("ab")).unwrap(), None);
        assert_eq!(runs.update(&id("ab"), |_| {}).unwrap(), None);
        runs.purge(now + RETENTION * 2).unwrap();
        assert!(!runs.path(&id("ab")).exists());
    }

    #[test]
    fn old_records_go_with_a_new_one_and_at_most_now_and_then() {
        let (_dir, runs) = runs();
        let now = SystemTime::now();
        let age = |name: &str, hours| {
            let file = File::options().write(true).open(runs.dir.join(name)).unwrap();
            file.set_modified(now - Duration::from_hours(hours)).unwrap();
        };
        for name in ["old", "young"] {
            runs.save(&id(name), &record(name), now).unwrap();
        }
        age("old.json", 25);
        age("young.json", 23);
        runs.save(&id("new"), &record("new"), now).unwrap();
        assert!(runs.get(&id("old")).unwrap().is_some(), "it was looked at a moment ago");
        age(MARK, 1);
        runs.save(&id("new"), &record("new"), now).unwrap();
        assert!(runs.get(&id("old")).unwrap().is_none());
        assert!(runs.get(&id("young")).unwrap().is_some());
    }
}
