//! What says nothing is ended in time. One test, because all of it is waiting.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::harness::{Site, eventually, tls};

#[test]
fn silence_has_an_end_at_every_stage_of_a_connection() {
    let site = Site::builder().agent("rate_limit_disable = 1").start();
    let address = site.agent().address();
    let started = Instant::now();
    let mut silent = tls::tcp(address);
    let mut half = tls::tcp(address);
    half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).unwrap();
    let connect = || tls::connect(address, &site.authority(), &site.dispatcher());
    let (mut idle, mut body) = (connect(), connect());
    for http in [&mut idle, &mut body] {
        http.stream.sock.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    }
    body.send("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    let mut rest = Vec::new();
    drop((silent.read_to_end(&mut rest), half.read_to_end(&mut rest)));
    assert!(started.elapsed() < Duration::from_secs(20), "handshakes: {:?}", started.elapsed());
    eventually("two lines about it", || (site.agent().lines("tls-failure").len() == 2).then_some(()));
    let answer = body.answer().unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (408, Some("request timed out")));
    assert!(idle.rest().is_empty() && body.rest().is_empty());
    assert!(started.elapsed() < Duration::from_secs(45), "requests: {:?}", started.elapsed());
    site.control(&["ping", "agent1"]).exits(0);
}
