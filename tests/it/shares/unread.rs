//! Answers in one piece that wait to be read: bounded in bytes and in time, whatever protocol they wait in.

use std::net::TcpStream;

use nix::sys::socket::{setsockopt, sockopt};

use super::*;

/// A script that prints so many bytes.
fn prints(bytes: usize) -> String {
    format!("head -c {bytes} /dev/zero | tr '\\0' x")
}

/// Whether a stream was reset, once it is.
async fn reset(mut answer: RecvStream) -> bool {
    answer.data().await.is_some_and(|piece| piece.is_err())
}

#[test]
fn whole_answers_that_nobody_reads_take_bounded_memory_and_the_oldest_give_way() {
    const ANSWERS: usize = 400;
    let site = site("").sh("much", &prints(1 << 20)).start();
    let (own, other) = (site.dispatcher(), another(&site));
    is_served(&site, &own);
    let before = resident(&site);
    in_a_runtime(async {
        // Nothing of an answer fits but its head.
        let sender = http_2(&site, &own, 0).await;
        let mut answers = JoinSet::new();
        for _ in 0..ANSWERS {
            let request = Request::post("https://x/run").body(()).unwrap();
            let answer = asked(&sender, request, r#"{"script":"much"}"#).await;
            assert_eq!(answer.status(), 200);
            answers.spawn(reset(answer.into_body()));
        }
        let grown = resident(&site).saturating_sub(before);
        // What was freed a moment ago may not have gone back to the system yet.
        assert!(grown < 256 * 1024, "{grown} KiB more for {ANSWERS} MiB");
        for who in [&own, &other] {
            is_served(&site, who);
        }
        // A hundred and twenty-eight of them are a little more than one dispatcher may have.
        for _ in 0..ANSWERS - 127 {
            assert!(timeout(SOON, answers.join_next()).await.unwrap().unwrap().unwrap());
        }
        assert!(timeout(Duration::from_millis(200), answers.join_next()).await.is_err(), "the others still wait");
    });
    let lines = site.agent().lines("unread");
    assert!(lines.len() >= ANSWERS - 127, "{}", lines.len());
    lines[0].is(&["ACTION=unread", "DISPATCHER=control-1", "PEER=127.0.0.1", "WAITING=*"]);
    eventually("the memory of those that went with their connection", || {
        is_served(&site, &other);
        let still = resident(&site).saturating_sub(before);
        (still < 64 * 1024).then_some(())
    });
}

#[test]
fn small_answers_that_nobody_reads_are_bounded_in_number() {
    let site = site("max_children = 2000").start();
    let (own, other) = (site.dispatcher(), another(&site));
    in_a_runtime(async {
        let sender = http_2(&site, &own, 0).await;
        let mut answers = JoinSet::new();
        for _ in 0..1034 {
            let ping = Request::post("https://x/ping").body(()).unwrap();
            answers.spawn(reset(asked(&sender, ping, "{}").await.into_body()));
        }
        for _ in 0..10 {
            assert!(timeout(SOON, answers.join_next()).await.unwrap().unwrap().unwrap());
        }
        assert!(timeout(Duration::from_millis(200), answers.join_next()).await.is_err(), "the others still wait");
        is_served(&site, &other);
    });
    assert_eq!(site.agent().lines("unread").len(), 10);
}

#[test]
fn a_whole_answer_of_which_nothing_is_taken_for_too_long_ends() {
    let site = site("stall_timeout = 1").sh("much", &prints(4 << 20)).start();
    let own = site.dispatcher();
    in_a_runtime(async {
        let sender = http_2(&site, &own, 0).await;
        let ping = Request::post("https://x/ping").body(()).unwrap();
        let answer = asked(&sender, ping, "{}").await.into_body();
        assert!(timeout(SOON, reset(answer)).await.unwrap());
    });
    // HTTP/1, where the kernel on both sides has taken what it can.
    let body = r#"{"script":"much"}"#;
    // From the first run on the agent keeps a connection to a monitor.
    assert_eq!(connect(&site, &own).post("/run", body).status, 200);
    let before = open_files(&site);
    let runs = site.agent().lines("run").len();
    let tcp = TcpStream::connect(site.agent().address()).unwrap();
    setsockopt(&tcp, sockopt::RcvBuf, &4096).unwrap();
    tcp.set_read_timeout(Some(SOON)).unwrap();
    let mut stalled = Http::new(tls::handshake(tls::config(&site.authority(), Some(&own)), tcp).unwrap());
    stalled.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    eventually("the end of the run", || (site.agent().lines("run").len() > runs).then_some(()));
    eventually("the end of the connection", || (open_files(&site) <= before).then_some(()));
    drop(stalled);
    // Who reads slowly, but reads, has all of it; on a busy machine a reader may come to a stand for too long.
    let all = eventually("an answer that was read", || {
        let mut slow = connect(&site, &own);
        slow.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        slow.answer().ok()
    });
    assert_eq!(all.json()["stdout"].as_str().unwrap().len(), 4 << 20);
}
