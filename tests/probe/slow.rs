//! Slow clients: slowhttptest opens hundreds of connections and says or reads a little at a time, while a trusted
//! dispatcher pings the agent.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::relay::{Guise, Relay};
use crate::site::Site;
use crate::{Fact, Tools, process};

/// Connections of one attack, and how many of them a second.
const CONNECTIONS: &str = "800";
const RATE: &str = "200";
/// Seconds of one attack: longer than the longest of the agent's deadlines on a request.
const SECONDS: &str = "40";
/// The longest that a ping, with a program of its own, may take. The machine is also busy with the attack itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the agent may take to let go of what an attack has left.
const RECOVERY: Duration = Duration::from_secs(60);

/// The tool's ways: what it calls them, its words, and the path that it asks for.
const WAYS: [(&str, &[&str], &str); 3] = [
    ("slow header", &["-H", "-i", "5", "-x", "24", "-t", "POST"], "run"),
    ("slow body", &["-B", "-i", "5", "-s", "65536", "-x", "24"], "run"),
    ("slow read", &["-X", "-w", "1", "-y", "16", "-n", "5", "-z", "8", "-k", "10", "-t", "GET"], "capabilities"),
];

/// Every way in every guise; `tell` hears what was seen after each.
pub(crate) fn facts(site: &Site, tools: &Tools, mut tell: impl FnMut(Vec<Fact>)) {
    let (agent, _) = site.pids();
    // What a first ping opens and keeps is no loss.
    ping(site);
    let before = process::descriptors(agent);
    for guise in [Guise::Stranger, Guise::Neighbour, Guise::Dispatcher] {
        let relay = Relay::start(site.address(), site.root(), guise);
        for way in WAYS {
            let mut seen = attack(site, tools, (&relay, guise), way);
            seen.push(recovery(site, before, &called(way.0, guise)));
            tell(seen);
        }
    }
}

fn called(way: &str, guise: Guise) -> String {
    format!("{way} by a {guise:?}").to_lowercase()
}

fn attack(site: &Site, tools: &Tools, from: (&Relay, Guise), way: (&str, &[&str], &str)) -> Vec<Fact> {
    let ((relay, guise), (name, words, path)) = (from, way);
    let scheme = if guise == Guise::Stranger { "https" } else { "http" };
    let report = tools.reports.join(format!("{}-{guise:?}", name.replace(' ', "-")).to_lowercase());
    let output = File::create(report.with_extension("log")).unwrap();
    let mut command = Command::new("slowhttptest");
    command.args(words).args(["-c", CONNECTIONS, "-r", RATE, "-l", SECONDS, "-p", "5", "-v", "1", "-g", "-o"]);
    command.arg(&report).args(["-u", &format!("{scheme}://{}/{path}", relay.address)]);
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    let mut tool = command.spawn().expect("slowhttptest starts");
    let (agent, _) = site.pids();
    let (started, mut pings, mut held) = (Instant::now(), Vec::new(), 0);
    let status = loop {
        pings.push(ping(site));
        held = held.max(process::sockets(agent));
        if let Some(status) = tool.try_wait().unwrap() {
            break status;
        }
    };
    let worst = pings.iter().flatten().max().copied().unwrap_or_default();
    let answered = pings.iter().flatten().count();
    let who = called(name, guise);
    let seconds = started.elapsed().as_secs();
    let pinged = format!("{answered} of {} pings in {seconds} s, the slowest {worst:.2?}", pings.len());
    let ran = status.success() && seconds > 0;
    vec![
        Fact::new(format!("{who}: the tool ran"), format!("{status}, {held} sockets at the agent"), ran),
        Fact::new(format!("{who}: pings"), pinged, answered == pings.len() && worst < PATIENCE),
    ]
}

/// One ping of the dispatcher on a connection of its own; none if it failed.
fn ping(site: &Site) -> Option<Duration> {
    let started = Instant::now();
    let output = site.command(&["ping", "web"]).output().unwrap();
    output.status.success().then(|| started.elapsed())
}

/// The agent lives, answers, and holds in the end what it held before.
fn recovery(site: &Site, before: u64, who: &str) -> Fact {
    let started = Instant::now();
    loop {
        let (answers, now) = (ping(site).is_some(), process::descriptors(site.pids().0));
        let fine = answers && now <= before;
        if fine || started.elapsed() > RECOVERY {
            let seen = format!("{now} descriptors after {} s, {before} at first", started.elapsed().as_secs());
            return Fact::new(format!("{who}: nothing is left behind"), seen, fine);
        }
        std::thread::park_timeout(Duration::from_millis(200));
    }
}
