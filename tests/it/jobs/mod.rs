//! Detached jobs, as a dispatcher sees them on the wire and as an operator finds them on the disk.

mod cancel;
mod control;
mod follow;
mod full;
mod killed;
mod lifecycle;
mod lost;
mod original;
mod output;
mod purge;
mod reloaded;

use std::path::PathBuf;

use ctrl_exec::wire::job::MEDIA_TYPE;
use serde_json::{Value, json};

use crate::harness::http::{Answer, Http};
use crate::harness::pki::Credentials;
use crate::harness::site::{Builder, DISPATCHER};
use crate::harness::tls::{self, Tls};
use crate::harness::{Site, eventually, host};

/// Waits for a file, and tells its own number.
pub(crate) const WAIT: &str =
    "echo begun; echo $$ > {work}/pid; while [ ! -e {work}/go ]; do sleep 0.01; done; echo over; echo bad >&2; exit 3";

pub(crate) fn site() -> Builder {
    Site::builder().sh("wait", WAIT).sh("ok", "cat; echo ran >> {work}/ran").section("kill_grace = 0")
}

/// A dispatcher's requests to the only agent, each on a connection of its own: the agent may be another by then.
pub(crate) struct Caller<'a> {
    pub(crate) site: &'a Site,
    pub(crate) credentials: Credentials,
}

impl<'a> Caller<'a> {
    pub(crate) fn of(site: &'a Site) -> Self {
        Self { site, credentials: site.dispatcher() }
    }

    pub(crate) fn connect(&self) -> Http<Tls> {
        tls::connect(self.site.agent().address(), &self.site.authority(), &self.credentials)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.connect().post(path, &body.to_string())
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    pub(crate) fn submit(&self, script: &str, id: &str) -> Answer {
        self.post("/run", &json!({ "script": script, "reqid": id, "async": true }))
    }

    /// Submits a job that must be accepted.
    #[track_caller]
    pub(crate) fn accepted(&self, script: &str, id: &str) {
        let answer = self.submit(script, id);
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json(), json!({ "script": script, "status": "accepted", "reqid": id }));
    }

    /// A request without a body from a caller that knows our words for a job's state.
    pub(crate) fn knowing(&self, request: &str) -> Answer {
        let mut http = self.connect();
        http.send(format!("{request} HTTP/1.1\r\nHost: x\r\nAccept: {MEDIA_TYPE}\r\nContent-Length: 0\r\n\r\n"));
        http.answer().unwrap()
    }

    pub(crate) fn result(&self, id: &str) -> Value {
        self.knowing(&format!("GET /result/{id}")).json()
    }

    /// Waits until a job runs no longer.
    pub(crate) fn ended(&self, id: &str) -> Value {
        eventually(&format!("the end of job {id}"), || {
            Some(self.result(id)).filter(|record| record["status"] != "running")
        })
    }
}

/// A file of a job.
pub(crate) fn file(site: &Site, id: &str, suffix: &str) -> PathBuf {
    runs(site).join(DISPATCHER).join(format!("{id}.{suffix}"))
}

pub(crate) fn runs(site: &Site) -> PathBuf {
    site.agent().root.join("var/lib/ctrl-exec-agent/runs")
}

/// The names of all files of all jobs of the dispatcher.
pub(crate) fn files(site: &Site) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(runs(site).join(DISPATCHER)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The script `wait` of the job that runs now, and its monitor.
pub(crate) fn waiting(site: &Site) -> (u32, u32) {
    let script = site.agent().worked_pid("pid");
    (script, host::parent(script))
}

pub(crate) fn go(site: &Site) {
    std::fs::write(site.agent().work("go"), "").unwrap();
}

pub(crate) fn dead(pid: u32) {
    eventually(&format!("the end of process {pid}"), || (!host::alive(pid)).then_some(()));
}
