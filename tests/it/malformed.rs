//! Heads that are none, or too large: each has an answer in JSON, and the agent goes on.

use std::io::Write as _;

use serde_json::json;

use crate::harness::http::Http;
use crate::harness::log::Log;
use crate::harness::tls::Tls;
use crate::harness::{Site, eventually, host, tls};

const PEER: &str = "PEER=127.0.0.1";

fn site() -> Site {
    Site::builder().agent("rate_limit_disable = 1").start()
}

fn trusted(site: &Site) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher())
}

#[track_caller]
fn still_serves(site: &Site) {
    assert!(host::alive(site.agent().pid()));
    assert_eq!(trusted(site).post("/ping", "{}").status, 200);
}

#[test]
fn a_head_that_is_too_large_is_refused() {
    let site = site();
    for size in [70_000, 3_000_000] {
        let mut http = trusted(&site);
        http.send(format!("POST /ping HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(size)));
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.json()), (431, json!({"error": "request head too large"})), "{size}");
        still_serves(&site);
    }
}

#[test]
fn thirty_two_headers_pass_and_the_next_is_refused_in_json() {
    let site = site();
    let head = |count: usize| format!("POST /ping HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(count));
    let mut http = trusted(&site);
    http.send(head(32));
    assert_eq!(http.answer().unwrap().status, 200);
    http.send(head(33));
    let answer = http.answer().unwrap();
    assert_eq!((answer.status, answer.json()), (431, json!({"error": "too many headers"})));
    let mut http = trusted(&site);
    http.send(head(500));
    let answer = http.answer().unwrap();
    assert_eq!((answer.status, answer.json()), (431, json!({"error": "too many headers"})));
    assert!(answer.head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer:?}");
    still_serves(&site);
}

#[test]
fn what_is_no_request_is_answered_in_json_and_has_one_line() {
    let site = site();
    let cases = [
        "GET / HTTP/1.1\r\nno header\r\n\r\n",
        "\x01\x02\x03\r\n\r\n",
        "POST /run HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ];
    for (count, text) in cases.into_iter().enumerate() {
        let mut http = trusted(&site);
        http.send(text);
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.json()), (400, json!({"error": "invalid request"})), "{text:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(
            answer.head.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.header("date").is_some(),
            "{answer:?}"
        );
        assert!(http.rest().is_empty());
        let lines =
            eventually("a line", || Some(site.agent().lines("request-malformed")).filter(|all| all.len() > count));
        assert_eq!(lines.len(), count + 1);
        lines[count].is(&["ACTION=request-malformed", PEER, "REASON=*"]);
    }
    // Behind a request it is hyper's answer, without a text.
    let mut http = trusted(&site);
    assert_eq!(http.post("/ping", "{}").status, 200);
    http.send(cases[0]);
    assert_eq!(http.answer().unwrap().status, 400);
    let all = cases.len() + 1;
    eventually("its line", || (site.agent().lines("request-malformed").len() == all).then_some(()));
    still_serves(&site);
}

#[test]
fn who_ends_without_a_request_is_told_so_and_one_within_it_too() {
    let site = site();
    for (text, error) in [("", "empty request"), ("POST /ping HT", "incomplete request")] {
        let mut http = trusted(&site);
        http.send(text);
        http.stream.conn.send_close_notify();
        http.stream.flush().unwrap();
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.json()), (400, json!({"error": error})));
    }
    site.agent().line("request-malformed").is(&["ACTION=request-malformed", PEER, "REASON=*"]);
    let mut http = trusted(&site);
    assert_eq!(http.post("/ping", "{}").status, 200);
    http.stream.conn.send_close_notify();
    http.stream.flush().unwrap();
    assert!(http.rest().is_empty(), "nothing follows an answer");
    assert_eq!(site.agent().lines("request-malformed").len(), 1, "who says nothing has no line");
}

#[test]
fn what_was_wrong_with_it_is_a_warning_in_the_log() {
    let mut site = Site::builder().prepare();
    let log = Log::listen(&site.agent().root, "dev/log");
    site.start(0);
    for (head, status, reason) in [
        ("GET / HTTP/1.1\r\nno header\r\n\r\n".to_owned(), 400, "REASON=invalid HTTP header parsed"),
        (format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(150)), 431, "REASON=message head is too large"),
    ] {
        let mut http = trusted(&site);
        http.send(head);
        assert_eq!(http.answer().unwrap().status, status);
        log.line(4, &["ACTION=request-malformed", PEER, reason]);
    }
}
