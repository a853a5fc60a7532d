//! Jobs and runs that are asked for while somebody kills, and what their callers must have been told.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::harness::http::{Answer, Http};
use crate::harness::{DEADLINE, Site, eventually, tls};
use crate::jobs::Caller;

/// Says that it runs, works for a while, prints, and ends with a status of the caller's choice. Meanwhile it has somebody else in
/// a session of his own, and somebody who has nothing else of it any more, both deaf to requests to end. They live for an hour
/// unless it comes to its end, or somebody sees to theirs.
pub(super) const SCRIPT: &str = "echo $1 >> {work}/started
(trap '' TERM HUP; exec setsid sleep 360$2 < /dev/null > /dev/null 2>&1) & kin=$!
orphan=$( (trap '' TERM HUP; exec env -i setsid sleep 360$2 < /dev/null > /dev/null 2>&1) & echo $!)
sleep $2; echo out of $1; echo $1 >> {work}/ended; kill -9 $kin $orphan; exit $3";

/// What those who ask share with the one who kills.
pub(super) struct Way {
    address: Mutex<SocketAddr>,
    config: ClientConfig,
}

/// A job; or a run, whose caller waits for its end.
pub(super) struct Call {
    pub(super) script: String,
    pub(super) detached: bool,
    pub(super) id: String,
    pub(super) work: String,
    pub(super) exit: u64,
}

/// What a caller has heard, if the answer has arrived.
pub(super) type Heard = Option<Value>;

impl Way {
    pub(super) fn to(site: &Site) -> Self {
        let config = tls::config(&site.authority(), Some(&site.dispatcher()));
        Self { address: Mutex::new(site.agent().address()), config }
    }

    /// The agent was started anew and listens there now.
    pub(super) fn moved(&self, address: SocketAddr) {
        *self.address.lock().unwrap() = address;
    }

    /// Asks once. A connection that cannot be made is tried again, since nothing was asked on it; one that breaks is not.
    pub(super) fn ask(&self, call: &Call) -> Heard {
        let Call { script, detached, id, work, exit } = call;
        let body = json!({"script": script, "reqid": id, "async": detached, "args": [id, work, exit.to_string()]});
        let mut http = eventually("a connection", || self.connect());
        let text = body.to_string();
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        let Answer { status, body, .. } = http.answer().ok()?;
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        assert_eq!(status, if json["status"] == "accepted" { 202 } else { 200 }, "{json}");
        Some(json)
    }

    fn connect(&self) -> Option<Http<tls::Tls>> {
        let address = *self.address.lock().unwrap();
        let tcp = TcpStream::connect(address).ok()?;
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        tls::handshake(self.config.clone(), tcp).ok().map(Http::new)
    }
}

/// How often each job and run has written its name there.
fn counts(site: &Site, name: &str) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(site.agent().work(name)).unwrap_or_default();
    let mut counts = BTreeMap::new();
    text.lines().for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
    counts
}

/// Demands that every job and every run is accounted for, now that all are over; `killed` monitors were killed.
pub(super) fn judge(site: &Site, all: &[(&Call, Heard)], killed: usize) {
    let caller = Caller::of(site);
    let (jobs, runs): (Vec<_>, Vec<_>) = all.iter().partition(|(call, _)| call.detached);
    let records: Vec<Value> = jobs.iter().map(|(job, _)| caller.ended(&job.id)).collect();
    let (started, ended) = (counts(site, "started"), counts(site, "ended"));
    let times = |call: &Call| [&started, &ended].map(|counts| counts.get(&call.id).copied().unwrap_or(0));
    let of_jobs = jobs.iter().zip(&records).filter(|((job, heard), record)| is_lost(job, heard, record, times(job)));
    let of_jobs: Vec<&str> = of_jobs.map(|((job, _), _)| job.id.as_str()).collect();
    let of_runs = runs.iter().filter(|(run, heard)| is_cut_off(run, heard.as_ref(), times(run)));
    let of_runs: Vec<&str> = of_runs.map(|(run, _)| run.id.as_str()).collect();
    let lost = of_jobs.len() + of_runs.len();
    assert!(lost <= killed, "{of_jobs:?} were accepted and lost, {of_runs:?} ended; {killed} monitors were killed");
}

/// Judges a job. Whether it was accepted, and lost with its monitor.
fn is_lost(job: &Call, heard: &Heard, record: &Value, times: [usize; 2]) -> bool {
    let accepted = heard.as_ref().is_some_and(|answer| answer["status"] == "accepted");
    let [started, _] = times;
    let about = format!("{} was told {heard:?} and started {started} times: {record}", job.id);
    assert!(heard.as_ref().is_none_or(|answer| accepted || not_told(answer)), "{about}");
    assert!(started <= 1, "{about}");
    match record["status"].as_str().unwrap() {
        // Between fork and exec a script looks like its monitor, and may be killed in its place.
        "done" if record["reason"] == "killed by signal 9" => true,
        "done" => {
            went_well(job, record, times, &about);
            false
        }
        "lost" => accepted,
        "unknown" => {
            assert_eq!((accepted, started), (false, 0), "{about}");
            false
        }
        other => panic!("{other}: {about}"),
    }
}

/// Judges a run. Whether its caller was told that it was killed; of one whose caller was told nothing, nothing is known.
fn is_cut_off(run: &Call, heard: Option<&Value>, times: [usize; 2]) -> bool {
    let [started, _] = times;
    let about = format!("{} was told {heard:?} and started {started} times", run.id);
    assert!(started <= 1, "{about}");
    let Some(answer) = heard else { return false };
    if answer["reason"] == "killed by signal 9" {
        return true;
    }
    if not_told(answer) {
        // Only this says that nothing ran.
        assert!(answer["reason"] != "executor-failed" || started == 0, "{about}");
        return false;
    }
    went_well(run, answer, times, &about);
    false
}

/// Whether nobody could say what became of a call.
fn not_told(answer: &Value) -> bool {
    answer["reason"] == "executor-failed" || answer["reason"] == "outcome-unknown"
}

fn went_well(call: &Call, told: &Value, times: [usize; 2], about: &str) {
    assert_eq!((times, &told["exit"]), ([1, 1], &json!(call.exit)), "{about}");
    assert_eq!(told["stdout"], format!("out of {}\n", call.id), "{about}");
}
