//! Agent, executor, its keeper and monitors are killed at any moment, again and again: no job is lost without a word,
//! none runs twice, and nobody and nothing is left behind.
//!
//! `CTRL_EXEC_JOB_ROUNDS`, `CTRL_EXEC_JOBS` and `CTRL_EXEC_JOB_SEED` make it longer, larger and repeatable; `cargo xtask
//! kill` does, with each kind of executor.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::Caller;
use crate::harness::executor::Mode;
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
        let told = json["reason"] == "executor-failed" || json["reason"] == "outcome-unknown";
        assert!(status == 202 || told, "{status}: {json}");
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

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Agent,
    Executor,
    Keeper,
    Monitor,
}

impl Kind {
    /// Those of an agent with this executor, the monitors thrice: they are many.
    fn all(mode: Mode) -> Vec<Self> {
        let mut all = vec![Self::Agent, Self::Executor, Self::Monitor, Self::Monitor, Self::Monitor];
        if mode == Mode::Own {
            all.push(Self::Keeper);
        }
        all
    }
}

/// Every process of root's or the agent's that runs the executor's part of the program.
fn program(site: &Site) -> Vec<u32> {
    let config = site.agent().config().display().to_string();
    host::with_words(|words| words.contains("serve-") && words.contains(&config))
}

/// A monitor leads a session of its own; what it has forked and is no script yet is in it.
fn monitors(site: &Site) -> Vec<u32> {
    program(site).into_iter().filter(|pid| host::leads_session(*pid)).collect()
}

/// Whose parent is gone, or is another than they are. The executor is a child of the agent, of the keeper, or of the
/// test; a monitor that does not lead its session yet is the executor's.
fn service(site: &Site) -> Option<u32> {
    let keeper = keeper(site);
    let all = program(site);
    let is_service = |pid: &u32| {
        let above = host::parent_of(*pid);
        Some(*pid) != keeper
            && host::shares_session(*pid)
            && above.is_none_or(|above| Some(above) == keeper || !all.contains(&above))
    };
    all.iter().copied().find(is_service)
}

/// The child of the agent that has the executor as its own, unless that was killed.
fn keeper(site: &Site) -> Option<u32> {
    let own = site.agent().mode == Mode::Own;
    let keepers = || program(site).into_iter().find(|pid| host::parent_of(*pid) == Some(site.agent().pid()));
    if own { keepers() } else { None }
}

fn scripts(site: &Site) -> Vec<u32> {
    let scripts = site.agent().root.join("scripts").display().to_string();
    host::with_words(|words| words.contains(&scripts))
}

/// Kills one of a kind, if there is one. One who was killed may look alive for a moment, and is put among `dying`.
fn kill(site: &mut Site, kind: Kind, random: &mut Random, dying: &mut Vec<u32>) -> bool {
    let victim = match kind {
        Kind::Agent => {
            site.agent_mut().kill();
            return true;
        }
        Kind::Executor => service(site),
        Kind::Keeper => keeper(site),
        Kind::Monitor => {
            let all = monitors(site);
            let chosen = usize::try_from(random.below(all.len().max(1) as u64)).unwrap();
            all.get(chosen).copied()
        }
    };
    dying.extend(victim.inspect(|pid| host::kill(*pid, Signal::SIGKILL)));
    victim.is_some()
}

/// Who is to be killed next: every kind as often as it is dealt, in an order of chance.
struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    /// How many of each kind were killed.
    killed: BTreeMap<Kind, usize>,
    dying: Vec<u32>,
}

impl Deck {
    fn of(mode: Mode) -> Self {
        Self { kinds: Kind::all(mode), left: Vec::new(), killed: BTreeMap::new(), dying: Vec::new() }
    }

    /// Kills the next, who stays in the deck if there is none just now. Whether a monitor was killed.
    fn deal(&mut self, site: &mut Site, random: &mut Random) -> bool {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let chosen = usize::try_from(random.below(self.left.len() as u64)).unwrap();
        let kind = self.left[chosen];
        let killed = kill(site, kind, random, &mut self.dying);
        if killed {
            self.left.swap_remove(chosen);
            *self.killed.entry(kind).or_default() += 1;
        }
        killed && kind == Kind::Monitor
    }
}

/// Starts again who has ended, as the init system would.
fn look_after(site: &mut Site, way: &Way) {
    if site.agent_mut().has_ended() {
        site.start(0);
        *way.address.lock().unwrap() = site.agent().address();
    }
    site.agent_mut().look_after_service();
}

/// Waits until everybody is there again. An agent that has lost the keeper of its executor serves on without, until it
/// is started again.
fn heal(site: &mut Site, way: &Way, dying: &mut Vec<u32>) {
    eventually("the end of everybody who was killed", || {
        dying.retain(|pid| host::alive(*pid));
        dying.is_empty().then_some(())
    });
    look_after(site, way);
    if site.agent().mode == Mode::Own {
        if keeper(site).is_none() {
            site.agent_mut().kill();
            look_after(site, way);
        }
        eventually("an executor", || service(site));
    }
}

fn counts(site: &Site, name: &str) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(site.agent().work(name)).unwrap_or_default();
    let mut counts = BTreeMap::new();
    text.lines().for_each(|line| *counts.entry(line.to_owned()).or_default() += 1);
    counts
}

/// One round: submits every job at once while somebody kills. Returns which were accepted, and how many monitors were
/// killed.
fn round(site: &mut Site, way: &Way, jobs: &[Job], deck: &mut Deck, random: &mut Random) -> (Vec<bool>, usize) {
    std::thread::scope(|scope| {
        let submitting: Vec<_> = jobs.iter().map(|job| scope.spawn(|| way.submit(job))).collect();
        let mut killed = 0;
        for _ in 0..3 + random.below(5) {
            std::thread::sleep(Duration::from_millis(random.below(120)));
            look_after(site, way);
            killed += usize::from(deck.deal(site, random));
        }
        heal(site, way, &mut deck.dying);
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

/// What the host has that a run could leave behind: mounts, and control groups.
fn belongings() -> BTreeSet<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut all: BTreeSet<String> = mounts.lines().map(|line| format!("mount {line}")).collect();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(
            entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
        all.insert(format!("control group {}", folder.display()));
    }
    all
}

/// Demands that nothing of it is new. Others on this host come and go meanwhile; what is ours would stay.
fn nothing_is_left(before: &BTreeSet<String>) {
    let mut left: BTreeSet<String> = belongings().difference(before).cloned().collect();
    eventually("the mounts and control groups of before", || {
        let now = belongings();
        left.retain(|each| now.contains(each));
        left.is_empty().then_some(())
    });
}

#[test]
fn whoever_is_killed_no_job_is_lost_silently_and_none_runs_twice() {
    let (rounds, most, seed) =
        (number("CTRL_EXEC_JOB_ROUNDS", 5), number("CTRL_EXEC_JOBS", 24), number("CTRL_EXEC_JOB_SEED", 7).max(1));
    let mut builder = Site::builder().agent("rate_limit_disable = yes");
    for place in 0..most {
        builder = builder.sh(&format!("job{place}"), JOB);
    }
    let before = belongings();
    let mut site = builder.start();
    let config = tls::config(&site.authority(), Some(&site.dispatcher()));
    let way = Way { address: Mutex::new(site.agent().address()), config };
    let (mut random, mut deck) = (Random(seed), Deck::of(site.agent().mode));
    let again = format!("{:?}: {rounds} rounds of {most} jobs, CTRL_EXEC_JOB_SEED={seed}", site.agent().mode);
    eprintln!("{again}");
    // A script's own child has none of our paths on its command line. This is no time that anybody else sleeps.
    let mark = format!("{:07}", std::process::id());
    for number in 0..rounds {
        let job = |place: u64, random: &mut Random| Job {
            script: format!("job{place}"),
            id: format!("r{number}-{place}"),
            work: format!("0.{:03}{mark}", random.below(500)),
            exit: random.below(120),
        };
        let jobs: Vec<Job> = (0..most).map(|place| job(place, &mut random)).collect();
        let (accepted, killed) = round(&mut site, &way, &jobs, &mut deck, &mut random);
        judge(&site, &jobs, &accepted, killed);
        eventually("no script and no monitor", || {
            (scripts(&site).is_empty() && monitors(&site).is_empty()).then_some(())
        });
    }
    eprintln!("killed: {:?}", deck.killed);
    for kind in &deck.kinds {
        assert!(deck.killed.contains_key(kind), "no {kind:?} was killed, and {:?} were: {again}", deck.killed);
    }
    // An executor that was killed is missed, and buried, when the next order is given; the system's, by the init system.
    site.agent_mut().look_after_service();
    let caller = Caller::of(&site);
    caller.accepted("job0", "last");
    let last = caller.ended("last");
    assert_eq!(last["status"], "done", "{last}");
    let executor = service(&site);
    assert!(executor == Some(site.agent().executor()) && keeper(&site).is_some() == (site.agent().mode == Mode::Own));
    let nobody_unburied = |pid: u32| (host::zombies(pid) == 0).then_some(());
    let all = [Some(site.agent().pid()), executor, keeper(&site)];
    all.into_iter().flatten().for_each(|pid| eventually("no zombie", || nobody_unburied(pid)));
    let place = site.dir().display().to_string();
    assert_eq!(site.agent_mut().stop(), Some(0));
    if site.agent().mode == Mode::System {
        assert_eq!(site.agent_mut().take_service().end(Signal::SIGTERM), Some(0));
    }
    let ours = || host::with_words(|words| words.contains(&place) || words.contains(&mark));
    eventually("the end of every process", || ours().is_empty().then_some(()));
    drop(site);
    nothing_is_left(&before);
}
