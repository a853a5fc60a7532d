//! Peers that mean harm, or know no better. After each the agent is the same process and serves its dispatcher.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::http::Http;
use crate::harness::site::Builder;
use crate::harness::tls::Tls;
use crate::harness::{DEADLINE, Site, eventually, host, tls};

fn site() -> Builder {
    Site::builder().agent("rate_limit_disable = 1").sh("count", "wc -c").sh("ok", "echo ran")
}

/// Less than the agent has with anybody who is silent, which is ten seconds at least, and as much as can be on a busy machine.
const PATIENCE: Duration = Duration::from_millis(9500);

#[track_caller]
fn still_serves(site: &Site) {
    assert!(host::alive(site.agent().pid()));
    let before = Instant::now();
    let mut http = trusted(site);
    assert_eq!(http.post("/ping", "{}").status, 200);
    assert!(before.elapsed() < PATIENCE, "{:?}", before.elapsed());
}

fn trusted(site: &Site) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher())
}

/// What a TCP peer gets to see until the agent closes.
fn reaction(site: &Site, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = tls::tcp(site.agent().address());
    drop(tcp.write_all(bytes));
    let mut seen = Vec::new();
    drop(tcp.read_to_end(&mut seen));
    seen
}

#[test]
fn bytes_that_are_no_tls_never_end_the_agent() {
    let site = site().start();
    let zeros = vec![0; 100_000];
    let cases: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        &zeros,
        &[0xff; 4096],
        &[22, 3, 1, 0xff, 0xff],
        &[22, 3, 1, 0, 5, 1, 0, 0, 1, 9],
    ];
    for bytes in &cases[..4] {
        reaction(&site, bytes);
        still_serves(&site);
    }
    for bytes in &cases[4..] {
        // A beginning that wants more: the peer goes away instead.
        let mut tcp = tls::tcp(site.agent().address());
        tcp.write_all(bytes).unwrap();
        drop(tcp);
        still_serves(&site);
    }
    assert!(site.agent().lines("tls-failure").len() >= 4);
}

#[test]
fn a_plain_connect_and_close_never_ends_the_agent() {
    let site = site().start();
    for _ in 0..50 {
        drop(tls::tcp(site.agent().address()));
    }
    still_serves(&site);
}

#[test]
fn five_hundred_silent_connections_delay_nobody() {
    let site = site().start();
    let address = site.agent().address();
    let same: Vec<TcpStream> = (0..300).map(|_| tls::tcp(address)).collect();
    still_serves(&site);
    site.control(&["ping", "agent1"]).exits(0);
    let many = |n: u8| tls::tcp_from(IpAddr::from([127, 0, 1, n % 20 + 1]), address);
    let others: Vec<TcpStream> = (0..200).map(many).collect();
    still_serves(&site);
    drop((same, others));
    still_serves(&site);
}

#[test]
fn half_a_handshake_and_silence_delays_nobody() {
    let site = site().start();
    let half: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut tcp = tls::tcp(site.agent().address());
            tcp.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
            tcp
        })
        .collect();
    still_serves(&site);
    drop(half);
}

#[test]
fn connections_that_say_nothing_after_the_handshake_delay_nobody() {
    let site = site().start();
    let idle: Vec<Http<Tls>> = (0..100).map(|_| trusted(&site)).collect();
    still_serves(&site);
    drop(idle);
}

#[test]
fn a_body_beyond_the_limit_gets_a_readable_refusal() {
    let site = site().start();
    let head = "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n";
    for body in [vec![b' '; 1_048_577], Vec::new()] {
        let mut http = trusted(&site);
        http.send([head.as_bytes(), &body].concat());
        let answer = http.answer().unwrap();
        assert_eq!((answer.status, answer.json()), (413, json!({"error": "request too large"})));
        assert!(answer.head.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{answer:?}");
    }
    let mut http = trusted(&site);
    http.send("POST /run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..17 {
        http.send(format!("10000\r\n{}\r\n", " ".repeat(0x10000)));
    }
    http.send("0\r\n\r\n");
    assert_eq!(http.answer().unwrap().status, 413);
    still_serves(&site);
}

#[test]
fn a_body_over_one_tls_record_never_fails() {
    let site = site().start();
    let args = vec!["x".repeat(100_000); 10];
    let body = json!({"script": "count", "args": args}).to_string();
    let padded = format!("{body}{}", " ".repeat(1_048_576 - body.len()));
    let reply = trusted(&site).post("/run", &padded).json();
    let count: usize = reply["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(count > 1_000_000, "{reply}");
}

#[test]
fn a_body_in_chunks_and_one_in_drops_are_read() {
    let site = site().start();
    let mut http = trusted(&site);
    http.send("POST /run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    http.send("9\r\n{\"script\"\r\n6;ext=1\r\n: \"ok\"\r\n1\r\n}\r\n0\r\nTrailer: x\r\n\r\n");
    assert_eq!(http.answer().unwrap().json()["stdout"], "ran\n");
    let body = r#"{"script":"ok"}"#;
    for byte in format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()).bytes() {
        http.send([byte]);
    }
    assert_eq!(http.answer().unwrap().json()["stdout"], "ran\n");
}

#[test]
fn lengths_that_make_no_sense_are_refused_and_nothing_runs() {
    let site = site().sh("touch", "touch {work}/ran").start();
    let body = r#"{"script":"touch"}"#;
    for lengths in [
        "Content-Length: -1",
        "Content-Length: ten",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 18\r\nContent-Length: 17",
        "Content-Length: 18, 17",
        "Content-Length: 18\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
    ] {
        let mut http = trusted(&site);
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n{body}"));
        let answer = http.answer().unwrap();
        assert!((400..500).contains(&answer.status), "{lengths}: {answer:?}");
    }
    assert!(!site.agent().work("ran").exists());
    still_serves(&site);
}

#[test]
fn a_body_that_never_comes_delays_nobody() {
    let site = site().agent("max_children = 8").start();
    let head = "POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    let waiting: Vec<Http<Tls>> = (0..6)
        .map(|_| {
            let mut http = trusted(&site);
            http.send(head);
            http
        })
        .collect();
    still_serves(&site);
    drop(waiting);
    still_serves(&site);
}

#[test]
fn json_that_is_no_object_never_goes_unanswered() {
    let site = site().start();
    let mut http = trusted(&site);
    for (body, error) in [
        ("[]", "request body must be a JSON object"),
        ("\"text\"", "request body must be a JSON object"),
        ("42", "request body must be a JSON object"),
        ("null", "script not permitted"),
        ("{}", "script not permitted"),
        ("", "invalid JSON"),
        ("{", "invalid JSON"),
        ("\u{feff}{}", "invalid JSON"),
        (r#"{"script":"ok","args":"x"}"#, "args must be an array"),
        (r#"{"script":"ok","args":[{}]}"#, "args must be an array of strings"),
        (r#"{"script":["ok"]}"#, "script not permitted"),
        (r#"{"script":"ok","args":["a\u0000b"]}"#, "argument 1 contains a NUL byte"),
        (r#"{"script":"ok","username":"a\u0000b"}"#, "username contains a NUL byte"),
    ] {
        let answer = http.post("/run", body);
        let json = answer.json();
        assert_eq!((answer.status, &json["exit"], &json["error"]), (200, &json!(-1), &json!(error)), "{body}");
    }
    for body in ["[]", "\"text\"", "42", "null", "", "{"] {
        assert_eq!(http.post("/ping", body).status, 200, "{body}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(http.post("/run", &deep).json()["error"], "invalid JSON");
    still_serves(&site);
}

#[test]
fn scripts_and_ids_are_echoed_with_their_types() {
    let site = site().start();
    let mut http = trusted(&site);
    let reply = http.post("/run", r#"{"script":"ok","reqid":17,"args":[1,true,null,"x"],"more":{}}"#).json();
    assert_eq!((&reply["exit"], &reply["reqid"], &reply["script"]), (&json!(0), &json!(17), &json!("ok")), "{reply}");
    let reply = http.post("/run", r#"{"script":5,"reqid":{"a":1}}"#).json();
    assert_eq!((&reply["script"], &reply["reqid"]), (&json!(5), &json!({"a": 1})), "{reply}");
}

#[test]
fn a_request_id_never_forges_a_log_line() {
    let site = site().start();
    let evil = "x\"\nctrl-exec-agent: ACTION=run DISPATCHER=evil\u{1b}[31m\u{2028}";
    let body = json!({"script": "ok", "reqid": evil}).to_string();
    let reply = trusted(&site).post("/run", &body).json();
    assert_eq!((&reply["exit"], &reply["reqid"]), (&json!(0), &json!(evil)), "{reply}");
    trusted(&site).post("/ping", &json!({"reqid": evil}).to_string());
    let line = site.agent().line("run");
    assert_eq!(line.keys(), ["ACTION", "DISPATCHER", "EXEC_REQID", "EXIT", "PEER", "REQID", "SCRIPT"]);
    assert_eq!(line.get("DISPATCHER"), Some("control-1"));
    let stderr = site.agent().stderr();
    assert!(
        !stderr.contains("\nctrl-exec-agent: ACTION=run DISPATCHER=evil") && !stderr.contains('\u{1b}'),
        "{stderr}"
    );
    site.agent().line_where("ping", |line| line.get("REQID").unwrap().starts_with("x\"\n"));
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let site = site().start();
    let mut http = trusted(&site);
    http.send("POST /run HTTP/1.0\r\nContent-Length: 15\r\n\r\n{\"script\":\"ok\"}");
    assert_eq!(http.answer().unwrap().json()["stdout"], "ran\n");
    assert!(http.rest().is_empty());
}

#[test]
fn a_connection_serves_request_after_request() {
    let site = site().start();
    let mut http = trusted(&site);
    for _ in 0..20 {
        assert_eq!(http.post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    }
    let one = "POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    http.send(one.repeat(3));
    for _ in 0..3 {
        assert_eq!(http.answer().unwrap().status, 200);
    }
}

#[test]
fn requests_beyond_max_children_are_told_so() {
    let site = site().agent("max_children = 2").sh("wait", "cat > /dev/null; sleep 300").start();
    let body = r#"{"script":"wait"}"#;
    let mut held: Vec<Http<Tls>> = Vec::new();
    for _ in 0..2 {
        let mut http = trusted(&site);
        http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        held.push(http);
    }
    let executor = site.agent().executor();
    eventually("two runs", || (host::children(executor).len() == 2).then_some(()));
    let answer = trusted(&site).post("/ping", "{}");
    assert_eq!(
        (answer.status, answer.json()),
        (503, json!({"error": "too many requests at once", "reason": "overload"}))
    );
    site.agent().line("overload").is(&["ACTION=overload", "LIVE=2", "PEER=127.0.0.1"]);
    drop(held);
    eventually("a free place", || (trusted(&site).post("/ping", "{}").status == 200).then_some(()));
}

/// One HTTP/2 frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&size[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn a_stranger_who_does_not_part_is_not_answered_without_end() {
    let site = site().agents(2).start();
    let (agent, other) = (&site.agents[0], &site.agents[1]);
    let mut config = tls::config(&site.authority(), Some(&other.credentials));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut tls = tls::handshake(config, tls::tcp(agent.address())).unwrap();
    // Settings are none; the window is as wide as it can be; and nothing that the agent asks for is acknowledged.
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(8, 0, 0, &[0x7f, 0, 0, 0])];
    tls.write_all(&hello.concat()).unwrap();
    tls.sock.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    // `GET https://x/`, in numbers of the static table (RFC 7541 A).
    let head = [0x82, 0x87, 0x84, 0x01, 1, b'x'];
    let (started, mut seen) = (Instant::now(), vec![0; 1 << 16]);
    for batch in 0_u32.. {
        let streams = (0..100).flat_map(|place| frame(1, 5, (batch * 100 + place) * 2 + 1, &head));
        if tls.write_all(&streams.collect::<Vec<u8>>()).and_then(|()| tls.flush()).is_err() {
            break;
        }
        while tls.read(&mut seen).is_ok_and(|count| count > 0) {}
        assert!(started.elapsed() < DEADLINE, "never parted with");
    }
    let answered = agent.lines("serial-reject").len();
    assert!((1..1000).contains(&answered), "{answered}");
    still_serves(&site);
}
