//! What a trusted dispatcher may keep an agent waiting for, and that nobody else waits with it: bodies that do not come,
//! answers that are not read, connections that say nothing. Its own quick requests do not wait either.

mod full;
mod large;
mod unread;

use std::future::Future;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ctrl_exec::tls::any_name;
use ctrl_exec::wire::stream::MEDIA_TYPE;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::harness::http::Http;
use crate::harness::pki::Credentials;
use crate::harness::site::Builder;
use crate::harness::tls::Tls;
use crate::harness::{Site, eventually, pki, tls};

/// What every request of a test has to be answered within, on a busy machine: less than the agent waits for a body.
const SOON: Duration = Duration::from_secs(25);

fn site(settings: &str) -> Builder {
    Site::builder().agent("rate_limit_disable = 1").agent(settings).sh("ok", "echo ran")
}

/// Another dispatcher that the agent trusts from now on.
fn another(site: &Site) -> Credentials {
    let other = pki::issue(&site.authority(), "control-2");
    let trusted = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), format!("{trusted}{} control-2\n", other.serial())).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    other
}

fn connect(site: &Site, who: &Credentials) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), who)
}

#[track_caller]
fn is_served(site: &Site, who: &Credentials) {
    let before = Instant::now();
    assert_eq!(connect(site, who).post("/ping", "{}").status, 200);
    assert_eq!(connect(site, who).post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
}

fn open_files(site: &Site) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", site.agent().pid())).unwrap().count()
}

fn in_a_runtime<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

/// An HTTP/2 connection on which streams have so many bytes to be answered with.
async fn http_2(site: &Site, who: &Credentials, window: u32) -> SendRequest<Bytes> {
    let address: SocketAddr = site.agent().address();
    let mut config = tls::config(&site.authority(), Some(who));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(any_name(), tcp).await.unwrap();
    let (sender, connection) = h2::client::Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A request of which `body` has been said, and no end.
async fn begun(sender: &SendRequest<Bytes>, body: Bytes) -> (ResponseFuture, SendStream<Bytes>) {
    let mut sender = timeout(SOON, sender.clone().ready()).await.unwrap().unwrap();
    let (answer, mut stream) = sender.send_request(Request::post("https://x/run").body(()).unwrap(), false).unwrap();
    stream.send_data(body, false).unwrap();
    (answer, stream)
}

/// A whole request, and the head of its answer.
async fn asked(sender: &SendRequest<Bytes>, request: Request<()>, body: &'static str) -> Response<RecvStream> {
    let mut sender = timeout(SOON, sender.clone().ready()).await.unwrap().unwrap();
    let (answer, mut stream) = sender.send_request(request, false).unwrap();
    stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    timeout(SOON, answer).await.unwrap().unwrap()
}

/// A streamed answer that nobody reads.
async fn unread(sender: &SendRequest<Bytes>, method: &str, path: &str, body: &'static str) -> RecvStream {
    let request = Request::builder().method(method).uri(format!("https://x{path}")).header("accept", MEDIA_TYPE);
    let answer = asked(sender, request.body(()).unwrap(), body).await;
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

async fn told(answer: ResponseFuture) -> (StatusCode, Value) {
    let mut answer = timeout(SOON, answer).await.unwrap().unwrap();
    let mut text = Vec::new();
    while let Some(piece) = answer.body_mut().data().await {
        text.extend_from_slice(&piece.unwrap());
    }
    (answer.status(), serde_json::from_slice(&text).unwrap())
}

/// So many of these are told that they are too many, before any other is told anything. Returns those others.
async fn crowded(many: usize, streams: Vec<ResponseFuture>) -> JoinSet<(StatusCode, Value)> {
    let mut answers: JoinSet<_> = streams.into_iter().map(told).collect();
    for _ in 0..many {
        let refusal =
            (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "too many requests at once", "reason": "overload"}));
        assert_eq!(answers.join_next().await.unwrap().unwrap(), refusal);
    }
    assert!(timeout(Duration::from_millis(100), answers.join_next()).await.is_err(), "the others still wait");
    answers
}

#[test]
fn slow_bodies_of_a_dispatcher_keep_no_request_out_neither_anothers_nor_its_own() {
    let site = site("max_children = 2").start();
    let (own, other) = (site.dispatcher(), another(&site));
    let before = open_files(&site);
    let slow: Vec<Http<Tls>> = (0..40)
        .map(|_| {
            let mut http = connect(&site, &own);
            http.send("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
            http
        })
        .collect();
    for who in [&own, &other] {
        is_served(&site, who);
    }
    in_a_runtime(async {
        let sender = http_2(&site, &own, 65_535).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(begun(&sender, Bytes::from_static(b"{")).await);
        }
        for who in [&own, &other] {
            is_served(&site, who);
        }
        let ping = Request::post("https://x/ping").body(()).unwrap();
        assert_eq!(asked(&sender, ping, "{}").await.status(), 200, "on the same connection");
        // What was slow and comes in the end is served like any other.
        let (answer, mut stream) = streams.remove(0);
        stream.send_data(Bytes::from_static(br#""script":"ok"}"#), true).unwrap();
        assert_eq!(timeout(SOON, answer).await.unwrap().unwrap().status(), 200);
    });
    assert!(site.agent().lines("overload").is_empty());
    drop(slow);
    // And the connections to free monitors, which the agent keeps: 8 at most.
    eventually("as many descriptors as before", || (open_files(&site) <= before + 8).then_some(()));
}

#[test]
fn the_oldest_of_very_many_slow_bodies_gives_way_and_is_told_so() {
    let site = site("max_children = 2000").start();
    let (own, other) = (site.dispatcher(), another(&site));
    in_a_runtime(async {
        let sender = http_2(&site, &own, 65_535).await;
        let ping = || Request::post("https://x/ping").body(()).unwrap();
        // By its answer the agent has said how many streams there may be.
        assert_eq!(asked(&sender, ping(), "{}").await.status(), 200);
        let (mut answers, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..1030 {
            let (answer, body) = begun(&sender, Bytes::from_static(b"{")).await;
            answers.push(answer);
            bodies.push(body);
        }
        assert_eq!(asked(&sender, ping(), "{}").await.status(), 200, "one that is there at once waits for nobody");
        is_served(&site, &other);
        assert_eq!(crowded(6, answers).await.len(), 1024);
    });
    assert!(site.agent().lines("overload").len() >= 6);
    is_served(&site, &own);
}

#[test]
fn bodies_that_are_waited_for_take_bounded_memory() {
    let site = site("").start();
    let (own, other) = (site.dispatcher(), another(&site));
    is_served(&site, &own);
    let before = resident(&site);
    in_a_runtime(async {
        let sender = http_2(&site, &own, 65_535).await;
        let almost = Bytes::from(vec![b' '; 1_048_575]);
        let (mut answers, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..80 {
            let (answer, body) = begun(&sender, almost.clone()).await;
            answers.push(answer);
            bodies.push(body);
        }
        // Sixty-four of them is what one dispatcher may have here.
        let mut rest = crowded(16, answers).await;
        let grown = resident(&site).saturating_sub(before);
        assert!(grown < 192 * 1024, "{grown} KiB more");
        is_served(&site, &other);
        // Those who were refused are past the end of theirs.
        for body in &mut bodies {
            drop(body.send_data(Bytes::new(), true));
        }
        while let Some(answer) = rest.join_next().await {
            assert_eq!(answer.unwrap().0, 200);
        }
    });
}

/// Resident memory in KiB.
fn resident(site: &Site) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", site.agent().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn an_answer_that_nobody_reads_keeps_no_request_out_once_its_script_has_ended() {
    // More pieces than may wait between a script and its reader.
    let text = "for piece in 1 2 3 4 5 6; do echo $piece; echo $piece >&2; sleep 0.05; done";
    let site = site("max_children = 1").sh("pieces", text).start();
    let (own, other) = (site.dispatcher(), another(&site));
    in_a_runtime(async {
        // Nothing of an answer fits but its head.
        let sender = http_2(&site, &own, 0).await;
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(unread(&sender, "POST", "/run", r#"{"script":"pieces"}"#).await);
            for who in [&own, &other] {
                eventually("room", || (connect(&site, who).post("/ping", "{}").status == 200).then_some(()));
            }
        }
        assert!(site.agent().lines("run").is_empty(), "all of them are still being told");
    });
}

#[test]
fn followers_who_read_nothing_keep_no_request_out_and_are_bounded() {
    let site = site("max_children = 300").sh("much", "head -c 1000000 /dev/zero").start();
    let (own, other) = (site.dispatcher(), another(&site));
    let body = r#"{"script":"much","reqid":"r1","async":true}"#;
    assert_eq!(connect(&site, &own).post("/run", body).status, 202);
    let ended = || connect(&site, &own).get("/result/r1").json();
    eventually("its end", || (ended()["status"] == "done").then_some(()));
    // From now on a single place.
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), config.replace("max_children = 300", "max_children = 1")).unwrap();
    in_a_runtime(async {
        let sender = http_2(&site, &own, 0).await;
        let mut held = vec![unread(&sender, "GET", "/result/r1", "").await];
        assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
        while held.len() < 257 {
            held.push(unread(&sender, "GET", "/result/r1", "").await);
        }
        for who in [&own, &other] {
            is_served(&site, who);
        }
        let mut ends: JoinSet<_> = held.into_iter().map(|mut answer| async move { answer.data().await }).collect();
        // The one of which longest nothing was taken is given up, and no other.
        let first = timeout(SOON, ends.join_next()).await.unwrap().unwrap().unwrap();
        assert!(first.is_some_and(|told| told.is_err()));
        assert!(timeout(Duration::from_millis(200), ends.join_next()).await.is_err());
    });
}

#[test]
fn idle_connections_of_a_neighbour_keep_no_dispatcher_out() {
    // With few descriptors the bounds are small.
    let hold = "echo x > {work}/held; until [ -e {work}/go ]; do sleep 0.1; done; echo over";
    let mut site = site("").agents(2).sh("hold", hold).prepare();
    site.agents[0].start_with("ulimit -n 1024", [Stdio::null(), Stdio::null()]);
    let (own, neighbour) = (site.dispatcher(), site.agents[1].credentials.clone());
    let at_work = r#"{"script":"hold"}"#;
    let mut working = connect(&site, &own);
    working.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{at_work}", at_work.len()));
    site.agent().worked("held");
    // From here on the agent keeps a connection to another monitor.
    is_served(&site, &own);
    let before = open_files(&site);
    for who in [&neighbour, &own] {
        let idle: Vec<Http<Tls>> = (0..200).map(|_| connect(&site, who)).collect();
        is_served(&site, &own);
        eventually("the end of the oldest", || (open_files(&site) <= before + 128).then_some(()));
        drop(idle);
        eventually("the end of all", || (open_files(&site) <= before).then_some(()));
    }
    std::fs::write(site.agent().work("go"), "").unwrap();
    assert_eq!(working.answer().unwrap().json()["stdout"], "over\n", "one at work is not ended");
}
