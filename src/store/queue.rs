//! The pairing queue: one file a request, `<id>.json`, and beside it the operator's answer, `<id>.approved` or
//! `<id>.denied`.
//!
//! The listener adds and removes requests; `approve` and `deny`, in other processes, only write answers. An approval
//! carries the registry record that takes effect when the agent has its certificate.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::loose;
use super::record::AgentRecord;
use super::{RECORD, StoreError};
use crate::sys::file::{self, Access, FileError, LockGuard};
use crate::wire::name::{AgentName, RequestId};
use crate::wire::pair::{LookupBy, OriginalAnswer};

/// A request that nobody answered is deleted after this time.
pub const STALE: Duration = Duration::from_mins(10);
/// Requests hold a nonce and answers a certificate: operators' business only.
const MODE: u32 = 0o640;
/// Root's command line and members of the group work with the same queue.
const DIR_MODE: u32 = 0o2770;
const LOCK_MODE: u32 = 0o660;
/// Shared by every session that serves the queue.
const SESSION_LOCK: &str = ".session.lock";

/// Which exchange a request came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The original's: its code covers the certificate request alone.
    #[default]
    Original,
    /// Ours: its code binds both ends.
    Strong,
}

/// A request that waits for the operator. Field names are the original's; `form` is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRequest {
    /// Request id.
    pub id: RequestId,
    /// The name it wants to be registered under.
    pub hostname: AgentName,
    /// Reported address, else the connection's.
    pub ip: IpAddr,
    /// The connection's address.
    pub source_ip: IpAddr,
    /// The certificate request, PEM, as sent.
    pub csr: String,
    /// The original's nonce.
    #[serde(default, deserialize_with = "loose::text")]
    pub nonce: String,
    /// The agent's wish.
    #[serde(default, deserialize_with = "loose::lookup")]
    pub lookup_by: Option<LookupBy>,
    /// The agent's serving port.
    #[serde(default, deserialize_with = "loose::port")]
    pub port: Option<u16>,
    /// When it was queued, UTC.
    pub received: String,
    /// The confirmation code as shown.
    pub code: String,
    /// Name that the source address resolves to; empty where there is none.
    #[serde(default, deserialize_with = "loose::text")]
    pub reverse_dns: String,
    /// 1 where that name resolves back to the source address.
    #[serde(default, deserialize_with = "loose::flag")]
    pub reverse_confirmed: u8,
    /// Which exchange.
    #[serde(default)]
    pub form: Form,
}

/// The operator's yes: what the agent gets, and the record to register once it has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// The answer in the original's form.
    #[serde(flatten)]
    pub answer: OriginalAnswer,
    /// The registry record.
    pub record: AgentRecord,
}

/// The operator's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Yes.
    Approved(Box<Approval>),
    /// No, and why.
    Denied(String),
}

/// The queue's directory.
#[derive(Clone, Debug)]
pub struct Queue {
    dir: PathBuf,
}

impl Queue {
    /// The queue in this directory, which need not exist yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Declares that a session serves this queue, until the guard is dropped or the process ends. The first session
    /// empties the queue: who asked an earlier one has gone with it, and can no longer be answered.
    pub fn serve(&self) -> Result<LockGuard, StoreError> {
        let _lock = self.lock()?;
        let path = self.dir.join(SESSION_LOCK);
        if let Some(alone) = file::try_lock_exclusive(&path, LOCK_MODE)? {
            for id in self.ids()? {
                self.remove_files(&id)?;
            }
            drop(alone);
        }
        Ok(file::lock_shared(&path, LOCK_MODE)?)
    }

    /// Whether a session serves this queue.
    pub fn is_served(&self) -> Result<bool, StoreError> {
        // Under the queue's lock, as everything that takes the session's lock: to a session that opens meanwhile, this
        // look would pass for another session.
        let _lock = self.lock()?;
        Ok(file::try_lock_exclusive(&self.dir.join(SESSION_LOCK), LOCK_MODE)?.is_none())
    }

    /// Queues a request unless `most` wait already; says whether it did.
    pub fn add(&self, request: &QueuedRequest, most: usize) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        if self.ids()?.len() >= most {
            return Ok(false);
        }
        self.write(&request.id, "json", request)?;
        Ok(true)
    }

    /// Every request, oldest first.
    pub fn list(&self) -> Result<Vec<QueuedRequest>, StoreError> {
        let mut requests = Vec::new();
        for id in self.ids()? {
            // One that was answered and removed since the directory was read is no longer there.
            requests.extend(self.get(&id)?);
        }
        requests.sort_by(|a, b| (&a.received, &a.id).cmp(&(&b.received, &b.id)));
        Ok(requests)
    }

    /// One request.
    pub fn get(&self, id: &RequestId) -> Result<Option<QueuedRequest>, StoreError> {
        read(&self.path(id, "json"))
    }

    /// Writes the operator's answer; an answer that is there already stays. Says whether this one counts.
    pub fn answer(&self, id: &RequestId, answer: &Answer) -> Result<bool, StoreError> {
        let _lock = self.lock()?;
        if self.get(id)?.is_none() || self.answered(id)?.is_some() {
            return Ok(false);
        }
        match answer {
            Answer::Approved(approval) => self.write(id, "approved", approval)?,
            Answer::Denied(reason) => {
                let denied = OriginalAnswer { status: "denied".to_owned(), ..OriginalAnswer::error(reason) };
                self.write(id, "denied", &denied)?;
            }
        }
        Ok(true)
    }

    /// The operator's answer, if there is one.
    pub fn answered(&self, id: &RequestId) -> Result<Option<Answer>, StoreError> {
        if let Some(denied) = read::<OriginalAnswer>(&self.path(id, "denied"))? {
            return Ok(Some(Answer::Denied(denied.reason.unwrap_or_else(|| "denied".to_owned()))));
        }
        Ok(read::<Approval>(&self.path(id, "approved"))?.map(|approval| Answer::Approved(Box::new(approval))))
    }

    /// Removes a request and its answers: it is over.
    pub fn remove(&self, id: &RequestId) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        self.remove_files(id)
    }

    /// Deletes requests older than [`STALE`] that nobody answered, and returns their ids.
    pub fn remove_stale(&self) -> Result<Vec<RequestId>, StoreError> {
        let _lock = self.lock()?;
        let mut removed = Vec::new();
        for id in self.ids()? {
            let old = file::age(&self.path(&id, "json"))?.is_some_and(|age| age > STALE);
            if old && self.answered(&id)?.is_none() {
                self.remove_files(&id)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }

    fn remove_files(&self, id: &RequestId) -> Result<(), StoreError> {
        for kind in ["json", "approved", "denied"] {
            match file::remove(&self.path(id, kind)) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn ids(&self) -> Result<Vec<RequestId>, StoreError> {
        match file::list_dir(&self.dir) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
            Ok(entries) => Ok(entries
                .iter()
                .filter_map(|entry| RequestId::parse(entry.to_str()?.strip_suffix(".json")?).ok())
                .collect()),
        }
    }

    fn lock(&self) -> Result<LockGuard, FileError> {
        file::create_dir(&self.dir, DIR_MODE)?;
        file::lock_exclusive(&self.dir.join(".queue.lock"), LOCK_MODE)
    }

    fn path(&self, id: &RequestId, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    fn write<T: Serialize>(&self, id: &RequestId, kind: &str, value: &T) -> Result<(), StoreError> {
        let path = self.path(id, kind);
        let text =
            serde_json::to_string(value).map_err(|source| StoreError::Malformed { path: path.clone(), source })?;
        Ok(file::write_atomic(&path, text.as_bytes(), Access::mode(MODE))?)
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match file::read_bounded(path, RECORD) {
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| StoreError::Malformed { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: &str) -> QueuedRequest {
        QueuedRequest {
            id: RequestId::parse(id).unwrap(),
            hostname: AgentName::parse("web").unwrap(),
            ip: IpAddr::from([127, 0, 0, 1]),
            source_ip: IpAddr::from([127, 0, 0, 1]),
            csr: "PEM".into(),
            nonce: String::new(),
            lookup_by: None,
            port: None,
            received: format!("2026-01-01T00:00:0{}Z", id.len()),
            code: "123-4567".into(),
            reverse_dns: String::new(),
            reverse_confirmed: 0,
            form: Form::Strong,
        }
    }

    fn queue() -> (tempfile::TempDir, Queue) {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path().join("pairing"));
        (dir, queue)
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let (_dir, queue) = queue();
        assert!(queue.add(&request("aa"), 2).unwrap());
        assert!(queue.add(&request("b"), 2).unwrap());
        assert!(!queue.add(&request("c"), 2).unwrap());
        let order: Vec<String> = queue.list().unwrap().iter().map(|r| r.id.to_string()).collect();
        assert_eq!(order, ["b", "aa"], "oldest first");
    }

    #[test]
    fn the_first_answer_counts_and_later_ones_do_not() {
        let (_dir, queue) = queue();
        queue.add(&request("a"), 9).unwrap();
        let id = RequestId::parse("a").unwrap();
        assert!(queue.answer(&id, &Answer::Denied("rejected by operator".into())).unwrap());
        assert!(!queue.answer(&id, &Answer::Denied("again".into())).unwrap());
        assert_eq!(queue.answered(&id).unwrap(), Some(Answer::Denied("rejected by operator".into())));
        queue.remove(&id).unwrap();
        assert!(queue.list().unwrap().is_empty() && queue.answered(&id).unwrap().is_none());
    }

    #[test]
    fn a_new_session_forgets_whom_nobody_serves_any_more_but_a_second_one_does_not() {
        let (_dir, queue) = queue();
        assert!(!queue.is_served().unwrap());
        queue.add(&request("a"), 9).unwrap();
        let first = queue.serve().unwrap();
        assert!(queue.list().unwrap().is_empty() && queue.is_served().unwrap());
        queue.add(&request("b"), 9).unwrap();
        let second = queue.serve().unwrap();
        assert_eq!(queue.list().unwrap().len(), 1);
        drop((first, second));
        // A process that another test has forked has the lock for a moment more.
        let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while queue.is_served().unwrap() {
            assert!(std::time::Instant::now() < deadline, "the lock is not let go of");
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_answer_to_nobody_is_refused() {
        let (_dir, queue) = queue();
        assert!(!queue.answer(&RequestId::parse("a").unwrap(), &Answer::Denied("x".into())).unwrap());
    }

    #[test]
    fn only_requests_that_nobody_answered_grow_stale() {
        let (dir, queue) = queue();
        for id in ["old", "answered", "young"] {
            queue.add(&request(id), 9).unwrap();
        }
        queue.answer(&RequestId::parse("answered").unwrap(), &Answer::Denied("x".into())).unwrap();
        for id in ["old", "answered"] {
            let file = std::fs::File::open(dir.path().join(format!("pairing/{id}.json"))).unwrap();
            file.set_modified(std::time::SystemTime::now() - STALE - Duration::from_secs(5)).unwrap();
        }
        let removed: Vec<String> = queue.remove_stale().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(removed, ["old"]);
        assert_eq!(queue.list().unwrap().len(), 2);
    }
}
