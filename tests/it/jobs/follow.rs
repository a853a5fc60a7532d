//! Output while it is printed: of a job that is under way, one that has ended, and one submitted for that.

use ctrl_exec::wire::stream::{Channel, Decoder, Frame, MEDIA_TYPE};
use serde_json::{Value, json};

use super::output::peak;
use super::{Caller, go, site, waiting};
use crate::harness::http::Http;
use crate::harness::tls::Tls;
use crate::harness::{eventually, host};

/// A streamed answer, read by hand.
struct Stream {
    http: Http<Tls>,
    decoder: Decoder,
    /// What of the last piece is not decoded yet.
    piece: Vec<u8>,
}

impl Stream {
    fn open(caller: &Caller<'_>, method: &str, path: &str, body: &str) -> Self {
        let mut http = caller.connect();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: {MEDIA_TYPE}\r\nConnection: close\r\n");
        http.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        let head = http.head().unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains(MEDIA_TYPE), "{head}");
        Self { http, decoder: Decoder::default(), piece: Vec::new() }
    }

    /// The next frame but those that only say that there is somebody.
    fn next(&mut self) -> Option<Frame> {
        loop {
            let mut rest = self.piece.as_slice();
            let frame = self.decoder.next_frame(&mut rest).unwrap();
            self.piece = rest.to_vec();
            match frame {
                Some(Frame::Idle) => {}
                Some(frame) => return Some(frame),
                None => self.piece = self.http.chunk()?,
            }
        }
    }

    fn rest(&mut self) -> (String, String, Value) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next().expect("a last frame") {
                Frame::Output(Channel::Stdout, bytes) => stdout.extend(bytes),
                Frame::Output(Channel::Stderr, bytes) => stderr.extend(bytes),
                Frame::End(json) => {
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return (text(stdout), text(stderr), serde_json::from_slice(&json).unwrap());
                }
                Frame::Idle => {}
            }
        }
    }
}

#[test]
fn a_running_job_is_followed_to_its_end() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let mut streams = [(); 3].map(|()| Stream::open(&caller, "GET", "/result/r1", ""));
    for stream in &mut streams {
        assert_eq!(stream.next(), Some(Frame::Output(Channel::Stdout, b"begun\n".to_vec())));
    }
    // One that goes away disturbs nobody.
    let [first, second, gone] = streams;
    drop(gone);
    go(&site);
    for mut stream in [first, second] {
        let (stdout, stderr, end) = stream.rest();
        assert_eq!((stdout.as_str(), stderr.as_str()), ("over\n", "bad\n"));
        assert_eq!((&end["status"], &end["exit"], end.get("stdout")), (&json!("done"), &json!(3), None), "{end}");
        assert_eq!(stream.next(), None);
    }
    let (stdout, stderr, end) = Stream::open(&caller, "GET", "/result/r1", "").rest();
    assert_eq!((stdout.as_str(), stderr.as_str(), &end["exit"]), ("begun\nover\n", "bad\n", &json!(3)));
    let (stdout, stderr, _) = Stream::open(&caller, "GET", "/result/r1?from=7", "").rest();
    assert_eq!((stdout.as_str(), stderr.as_str()), ("ver\n", ""));
}

#[test]
fn a_job_that_is_submitted_to_be_followed_outlives_its_caller() {
    let site = site().start();
    let caller = Caller::of(&site);
    let body = json!({"script": "wait", "reqid": "r1", "async": true}).to_string();
    let mut stream = Stream::open(&caller, "POST", "/run", &body);
    assert_eq!(stream.next(), Some(Frame::Output(Channel::Stdout, b"begun\n".to_vec())));
    site.agent().line("run-async");
    let (script, _) = waiting(&site);
    drop(stream);
    assert_eq!(caller.result("r1")["status"], "running");
    assert!(host::alive(script));
    go(&site);
    assert_eq!(caller.ended("r1")["stdout"], "begun\nover\n");
    assert!(site.agent().lines("run").is_empty());
}

#[test]
fn a_hundred_megabytes_are_followed_whole_and_grow_nobody() {
    let site = site().sh("flood", "head -c 104857600 /dev/zero").agent("max_output = 64KiB").start();
    let caller = Caller::of(&site);
    let body = json!({"script": "flood", "reqid": "r1", "async": true}).to_string();
    let before = peak(site.agent());
    let mut stream = Stream::open(&caller, "POST", "/run", &body);
    let mut bytes = 0;
    let end: Value = loop {
        match stream.next().unwrap() {
            Frame::Output(_, piece) => bytes += piece.len(),
            Frame::End(json) => break serde_json::from_slice(&json).unwrap(),
            Frame::Idle => {}
        }
    };
    assert_eq!((bytes, &end["status"]), (104_857_600, &json!("done")));
    let grown = peak(site.agent()) - before;
    assert!(grown < 24 * 1024, "the agent grew by {grown} KiB");
}

#[test]
fn a_follower_sees_a_job_lost() {
    let site = site().start();
    let caller = Caller::of(&site);
    caller.accepted("wait", "r1");
    let (_, monitor) = waiting(&site);
    let mut stream = Stream::open(&caller, "GET", "/result/r1", "");
    assert!(stream.next().is_some());
    host::kill(monitor, nix::sys::signal::Signal::SIGKILL);
    let (_, _, end) = stream.rest();
    assert_eq!((&end["status"], &end["exit"]), (&json!("lost"), &json!(-1)));
    eventually("the record", || (caller.result("r1")["status"] == "lost").then_some(()));
}
