//! What says nothing, or says it a byte at a time, is ended in time. One test, because all of it is waiting.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::harness::{Site, eventually, tls};

/// Longest time until a handshake is given up: ten seconds, and a busy machine; less than it would take as a request.
const SHORT: Duration = Duration::from_secs(29);
/// Longest time until a request is: thirty, and a busy machine.
const LONG: Duration = Duration::from_secs(100);

#[test]
fn silence_has_an_end_at_every_stage_of_a_connection() {
    let site = Site::builder().agent("rate_limit_disable = 1\nmax_children = 2").start();
    let address = site.agent().address();
    let started = Instant::now();
    let mut silent = tls::tcp(address);
    let mut half = tls::tcp(address);
    half.write_all(&tls::HALF_A_HELLO).unwrap();
    let mut dripping = tls::tcp(address);
    dripping.write_all(&tls::HALF_A_HELLO).unwrap();
    tls::every_second(&dripping);
    let connect = || {
        let http = tls::connect(address, &site.authority(), &site.dispatcher());
        http.stream.sock.set_read_timeout(Some(LONG)).unwrap();
        http
    };
    let (mut idle, mut head, mut body, mut kept) = (connect(), connect(), connect(), connect());
    head.send("POST /run HTTP/1.1\r\nHost: x\r\n");
    body.send("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    assert_eq!(kept.post("/ping", "{}").status, 200);
    let mut bodies: Vec<_> = (0..20).map(|_| connect()).collect();
    for slow in &mut bodies {
        slow.send("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    }
    let drop_by_drop =
        [("POST /run HTTP/1.1\r\nX: ", b'x'), ("POST /run HTTP/1.1\r\nContent-Length: 100\r\n\r\n", b' ')];
    let drops: Vec<_> = drop_by_drop
        .map(|(begin, byte)| {
            let mut http = connect();
            http.send(begin);
            tls::every_second(&http.stream.sock);
            std::thread::spawn(move || tls::drip(&mut http.stream, byte))
        })
        .into();
    let mut rest = Vec::new();
    drop((silent.read_to_end(&mut rest), half.read_to_end(&mut rest), tls::drip(&mut dripping, 0)));
    assert!(started.elapsed() < SHORT, "handshakes: {:?}", started.elapsed());
    eventually("three lines about it", || (site.agent().lines("tls-failure").len() == 3).then_some(()));
    for slow in bodies.iter_mut().chain([&mut body]) {
        let answer = slow.answer().unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (408, Some("request timed out")));
        assert!(slow.rest().is_empty());
    }
    for http in [&mut idle, &mut head, &mut kept] {
        assert!(http.rest().is_empty());
    }
    for dripping in drops {
        let told = dripping.join().unwrap();
        assert!(told.is_empty() || told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
    }
    assert!(started.elapsed() < LONG, "requests: {:?}", started.elapsed());
    site.control(&["ping", "agent1"]).exits(0);
}
