//! What the agent adds to a server of the same crates, and how it bears many scripts at once.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::Bench;
use crate::caller::Caller;
use crate::hello::{Client, Hello};
use crate::process;
use crate::report::Report;
use crate::site::Site;
use crate::time::{float, median, quantile, rate};

/// Turns; in each, so many requests on kept connections, and so many connections.
const TURNS: u64 = 10;
const REQUESTS: u64 = 4000;
const CONNECTIONS: u64 = 300;
/// Kept connections, and how many requests are under way on each.
const KEPT: u64 = 4;
const UNDER_WAY: u64 = 8;
/// How many new connections are made at once.
const AT_ONCE: u64 = 8;
/// Attached scripts that run while pings are timed, and while memory is looked up.
const SCRIPTS: [u64; 2] = [200, 256];
const PINGS: u64 = 3000;
/// How long they run, seconds: longer than anything here takes.
const SLEEP: &str = "600";

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let (agent, _) = site.pids();
    report.at_most("agent, resident, idle", float(process::resident(agent)), "KiB", 8192.0);
    against_a_bare_server(&site, report);
    drop(site);
    under_scripts(bench, report);
}

fn against_a_bare_server(site: &Site, report: &mut Report) {
    let (hello, address) = Hello::start(site.root());
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let clients = [site.address(), address].map(|address| Client::new(site.root(), address));
    let [mut requests, mut connections] = [[Duration::ZERO; 2]; 2];
    // They take turns, so that a slow moment of the machine hits both. The first turn warms up.
    for turn in 0..=TURNS {
        for (place, client) in clients.iter().enumerate() {
            let kept = runtime.block_on(kept(client));
            // The agent answers a ping, the other shakes hands.
            let fresh = runtime.block_on(fresh(client, place == 0));
            if turn > 0 {
                *requests.get_mut(place).unwrap() += kept;
                *connections.get_mut(place).unwrap() += fresh;
            }
        }
    }
    drop(hello);
    compare(report, ["pings", "requests"], requests.map(|time| rate(TURNS * REQUESTS, time)), 0.4);
    let connections = connections.map(|time| rate(TURNS * CONNECTIONS, time));
    compare(report, ["new connections with a ping", "handshakes"], connections, 0.7);
}

fn compare(report: &mut Report, what: [&str; 2], [agent, bare]: [f64; 2], limit: f64) {
    let [ours, theirs] = what;
    report.fact(&format!("{ours} to the agent"), agent, "/s");
    report.fact(&format!("{theirs} to a bare server"), bare, "/s");
    report.at_least(&format!("{ours} / bare {theirs}"), agent / bare, "x", limit);
}

/// Requests on kept connections.
async fn kept(client: &Client) -> Duration {
    let mut senders = Vec::new();
    for _ in 0..KEPT {
        senders.push(client.keep().await);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for sender in &senders {
        for _ in 0..UNDER_WAY {
            let (client, mut sender) = (client.clone(), sender.clone());
            tasks.spawn(async move {
                for _ in 0..REQUESTS / KEPT / UNDER_WAY {
                    client.ping(&mut sender).await;
                }
            });
        }
    }
    tasks.join_all().await;
    started.elapsed()
}

/// Connections, each for itself.
async fn fresh(client: &Client, pinged: bool) -> Duration {
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for share in 0..AT_ONCE {
        let client = client.clone();
        tasks.spawn(async move {
            for _ in (share..CONNECTIONS).step_by(usize::try_from(AT_ONCE).unwrap()) {
                if pinged {
                    client.fresh_ping().await;
                } else {
                    client.handshake().await;
                }
            }
        });
    }
    tasks.join_all().await;
    started.elapsed()
}

fn under_scripts(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let (agent, _) = site.pids();
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let [few, all] = SCRIPTS;
    let mut sleepers = JoinSet::new();
    sleep(&runtime, &site, few, &mut sleepers);
    let pings = pings(&runtime, &site);
    report.fact("ping while 200 scripts run, p50", median(&pings), "ms");
    report.at_most("ping while 200 scripts run, p99", quantile(&pings, 0.99), "ms", 5.0);
    sleep(&runtime, &site, all, &mut sleepers);
    report.at_most("agent, resident, 256 runs under way", float(process::resident(agent)), "KiB", 40_960.0);
    assert!(sleepers.try_join_next().is_none(), "a script ended");
}

/// Starts scripts until so many run.
fn sleep(runtime: &Runtime, site: &Site, count: u64, sleepers: &mut JoinSet<()>) {
    let caller = Caller::new(site);
    let missing = count - u64::try_from(sleepers.len()).unwrap();
    for _ in 0..missing {
        let caller = caller.clone();
        sleepers.spawn_on(async move { drop(caller.call("sleep", &[SLEEP]).await) }, runtime.handle());
    }
    let (_, executor) = site.pids();
    let running =
        || process::children(executor).iter().filter(|monitor| !process::children(**monitor).is_empty()).count();
    let deadline = Instant::now() + Duration::from_mins(1);
    while u64::try_from(running()).unwrap() < count {
        assert!(Instant::now() < deadline, "{} of {count} scripts run", running());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// On a connection of its own that is kept.
fn pings(runtime: &Runtime, site: &Site) -> Vec<Duration> {
    let caller = Caller::new(site);
    runtime.block_on(async {
        let mut times = Vec::new();
        for _ in 0..PINGS {
            times.push(caller.ping().await);
        }
        times
    })
}
