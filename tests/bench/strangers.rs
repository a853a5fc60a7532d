//! What a thousand strangers cost a dispatcher, and the agent.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::caller::Caller;
use crate::process::{self, Watch};
use crate::report::Report;
use crate::site::Site;
use crate::time::{float, median, quantile};
use crate::{Bench, helper};

const STRANGERS: u32 = 1000;
/// The beginning of a client's hello.
const HALF_A_HELLO: [u8; 11] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
/// How long a stranger who was thrown out waits before it comes again, and a slow one between two bytes.
const AGAIN: Duration = Duration::from_secs(1);

/// Times of pings, each on a new connection, and all on one that is kept.
struct Pings {
    fresh: Vec<Duration>,
    kept: Vec<Duration>,
}

pub(crate) fn run(bench: &Bench, report: &mut Report) {
    let site = Site::start(&bench.binary);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let kept = Caller::new(&site);
    pings(&runtime, &site, &kept, 200);
    let alone = pings(&runtime, &site, &kept, bench.size);
    let (agent, _) = site.pids();
    let (resident, descriptors) = (process::resident(agent), process::descriptors(agent));
    let mut crowd = helper::start("strangers", &[&site.address().to_string()]);
    // Says a line when all of them have been there.
    BufReader::new(crowd.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    let look = move || vec![("resident", process::resident(agent)), ("descriptors", process::descriptors(agent))];
    let watch = Watch::start(look);
    let among = pings(&runtime, &site, &kept, bench.size);
    let largest = watch.end();
    crowd.kill().unwrap();
    crowd.wait().unwrap();
    compare(report, "on a new connection", &alone.fresh, &among.fresh);
    compare(report, "on a kept connection", &alone.kept, &among.kept);
    let grown = float(largest.get("resident").unwrap().saturating_sub(resident)) * 1024.0;
    let held = float(largest.get("descriptors").unwrap().saturating_sub(descriptors));
    report.fact("strangers' connections that the agent held", held, "");
    // What one may fill before anything is known of it: a head.
    report.at_most("agent, memory for each of them", (grown / held).round(), "bytes", 65_536.0);
}

fn pings(runtime: &Runtime, site: &Site, kept: &Caller, count: u64) -> Pings {
    let mut pings = Pings { fresh: Vec::new(), kept: Vec::new() };
    runtime.block_on(async {
        for _ in 0..count {
            pings.fresh.push(Caller::new(site).ping().await);
            pings.kept.push(kept.ping().await);
        }
    });
    pings
}

fn compare(report: &mut Report, how: &str, alone: &[Duration], among: &[Duration]) {
    report.fact(&format!("ping {how}, alone, p50"), median(alone), "ms");
    report.fact(&format!("ping {how}, among 1000 strangers, p50"), median(among), "ms");
    let (alone, among) = (quantile(alone, 0.99), quantile(among, 0.99));
    report.fact(&format!("ping {how}, alone, p99"), alone, "ms");
    report.at_most(&format!("ping {how}, among 1000 strangers, p99"), among, "ms", alone + 5.0);
}

/// The helper: `ADDRESS`. A third says nothing, a third a byte a second, a third something else.
pub(crate) fn help(words: &[&str]) {
    let [address] = *words else { unreachable!("one word") };
    let address: SocketAddr = address.parse().unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let missing = Arc::new(AtomicU32::new(STRANGERS));
        let strangers: Vec<_> =
            (0..STRANGERS).map(|number| tokio::spawn(stranger(number, address, Arc::clone(&missing)))).collect();
        for stranger in strangers {
            stranger.await.unwrap();
        }
    });
}

async fn stranger(number: u32, address: SocketAddr, missing: Arc<AtomicU32>) {
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 16, 1)) + number);
    let mut first = true;
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let connected = socket.connect(address).await;
        if std::mem::take(&mut first) && missing.fetch_sub(1, Ordering::Relaxed) == 1 {
            println!("here");
        }
        if let Ok(stream) = connected {
            visit(number, stream).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn visit(number: u32, mut stream: TcpStream) {
    let mut heard = [0; 1024];
    let said: &[u8] = match number % 3 {
        0 => b"",
        1 => &HALF_A_HELLO,
        _ => b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    // Whatever goes wrong for a stranger ends its visit.
    let _ = stream.write_all(said).await;
    loop {
        let wait = tokio::time::timeout(AGAIN, stream.read(&mut heard)).await;
        match wait {
            Ok(Ok(1..)) => {}
            Ok(_) => return,
            Err(_) if number % 3 == 1 => drop(stream.write_all(&[0]).await),
            Err(_) => {}
        }
    }
}
