//! Agent, executor and monitors are killed at any moment, again and again: no job is lost without a word, none runs
//! twice, and nobody is left behind.
//!
//! `CTRL_EXEC_JOB_ROUNDS`, `CTRL_EXEC_JOBS` and `CTRL_EXEC_JOB_SEED` make it longer, larger and repeatable.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::Caller;
use crate::harness::http::{Answer, Http};
use crate::harness::{DEADLINE, Site, eventually, host, tls};

/// Says that it runs, works for a while, prints, and ends with a status of the caller's choice.
const JOB: &str = "echo $1 >> {work}/started; sleep $2; echo out of $1; echo $1 >> {work}/ended; exit $3";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Numbers that look random and come again with their seed (`xorshift64*`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

/// What those who submit share with the one who kills.
struct Way {
    address: Mutex<SocketAddr>,
    config: ClientConfig,
}

impl Way {
    /// Submits once. A connection that cannot be made is tried again, since nothing was asked on it; one that breaks
    /// is not. Says whether the job was accepted for certain.
    fn submit(&self, job: &Job) -> bool {
        let body = json!({"script": job.script, "reqid": job.id, "async": true, "args": [job.id, job.work, job.exit]});
        let mut http = eventually("a connection", || self.connect());
        let text = body.to_string();
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{text}", text.len()));
        let Ok(Answer { status, body, .. }) = http.answer() else { return false };
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        assert!(status == 202 || json["reason"] == "executor-failed", "{status}: {json}");
        status == 202
    }

    fn connect(&self) -> Option<Http<tls::Tls>> {
        let address = *self.address.lock().unwrap();
        let tcp = TcpStream::connect(address).ok()?;
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        tls::handshake(self.config.clone(), tcp).ok().map(Http::new)
    }
}

struct Job {
    script: String,
    id: String,
    work: String,
    exit: u64,
}

/// Every process of the agent's own program: the executor and the monitors.
fn supervisors(site: &Site) -> Vec<u32> {
    let config = site.agent().config().display().to_string();
    host::with_words(|words| words.contains("serve-private") && words.contains(&config))
}

fn scripts(site: &Site) -> Vec<u32> {
    let scripts = site.agent().root.join("scripts").display().to_string();
    host::with_words(|words| words.contains(&scripts))
}

/// Kills the agent, the executor or a monitor; whether it may have been a monitor.
fn kill_somebody(site: &mut Site, way: &Way, random: &mut Random) -> bool {
    let monitors = |site: &Site| {
        let executor = host::children(site.agent().pid());
        supervisors(site).into_iter().filter(move |pid| !executor.contains(pid)).collect::<Vec<u32>>()
    };
    match random.below(4) {
        0 => {
            site.agent_mut().kill();
            site.start(0);
            *way.address.lock().unwrap() = site.agent().address();
            false
        }
        1 => {
            for pid in host::children(site.agent().pid()) {
                host::kill(pid, Signal::SIGKILL);
            }
            false
        }
        _ => {
            let all = monitors(site);
            let chosen = usize::try_from(random.below(1 + all.len() as u64)).unwrap();
            all.get(chosen).inspect(|pid| host::kill(**pid, Signal::SIGKILL)).is_some()
        }
    }
}

fn counts(site: &Site, name: &str) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(site.agent().work(name)).unwrap_or_default();
    let mut counts = BTreeMap::new();
    text.lines().for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
    counts
}

/// One round: submits every job at once while somebody kills. Returns which were accepted, and whether a monitor died.
fn round(site: &mut Site, way: &Way, jobs: &[Job], random: &mut Random) -> (Vec<bool>, usize) {
    std::thread::scope(|scope| {
        let submitting: Vec<_> = jobs.iter().map(|job| scope.spawn(|| way.submit(job))).collect();
        let mut killed = 0;
        for _ in 0..3 + random.below(5) {
            std::thread::sleep(Duration::from_millis(random.below(120)));
            killed += usize::from(kill_somebody(site, way, random));
        }
        (submitting.into_iter().map(|thread| thread.join().unwrap()).collect(), killed)
    })
}

/// Demands that every job is accounted for.
fn judge(site: &Site, jobs: &[Job], accepted: &[bool], killed: usize) {
    let caller = Caller::of(site);
    let mut lost = Vec::new();
    for (job, accepted) in jobs.iter().zip(accepted) {
        let record = caller.ended(&job.id);
        let times = |name| counts(site, name).get(&job.id).copied().unwrap_or(0);
        let (started, ended) = (times("started"), times("ended"));
        assert!(started <= 1, "{} ran {started} times", job.id);
        match record["status"].as_str().unwrap() {
            // Between fork and exec a script looks like its monitor, and may be killed in its place.
            "done" if record["reason"] == "killed by signal 9" => lost.push(&job.id),
            "done" => {
                assert_eq!((started, ended, &record["exit"]), (1, 1, &json!(job.exit)), "{record}");
                assert_eq!(record["stdout"], format!("out of {}\n", job.id));
            }
            "lost" => lost.extend(accepted.then_some(&job.id)),
            "unknown" => assert_eq!((*accepted, started), (false, 0), "{record}"),
            other => panic!("{other}: {record}"),
        }
    }
    assert!(lost.len() <= killed, "{lost:?} were accepted and lost, and {killed} monitors killed");
}

#[test]
fn whoever_is_killed_no_job_is_lost_silently_and_none_runs_twice() {
    let (rounds, most, seed) =
        (number("CTRL_EXEC_JOB_ROUNDS", 5), number("CTRL_EXEC_JOBS", 24), number("CTRL_EXEC_JOB_SEED", 7));
    let mut builder = Site::builder().agent("rate_limit_disable = yes");
    for place in 0..most {
        builder = builder.sh(&format!("job{place}"), JOB);
    }
    let mut site = builder.start();
    let config = tls::config(&site.authority(), Some(&site.dispatcher()));
    let way = Way { address: Mutex::new(site.agent().address()), config };
    let mut random = Random(seed.max(1));
    for number in 0..rounds {
        let job = |place: u64, random: &mut Random| Job {
            script: format!("job{place}"),
            id: format!("r{number}-{place}"),
            work: format!("0.{:03}", random.below(500)),
            exit: random.below(120),
        };
        let jobs: Vec<Job> = (0..most).map(|place| job(place, &mut random)).collect();
        let (accepted, killed) = round(&mut site, &way, &jobs, &mut random);
        judge(&site, &jobs, &accepted, killed);
        eventually("no script and no monitor", || {
            (scripts(&site).is_empty() && supervisors(&site).len() <= 1).then_some(())
        });
    }
    // An executor that was killed is missed, and buried, when the next order is given.
    Caller::of(&site).accepted("job0", "last");
    eventually("no zombie", || (host::zombies(site.agent().pid()) == 0).then_some(()));
}
