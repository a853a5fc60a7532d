//! Output while it is printed: of a job that is under way, one that has ended, and one submitted for that.

use ctrl_exec::wire::stream::{Channel, Decoder, Frame, MEDIA_TYPE};
use serde_json::{Value, json};

use super::{Caller, WAIT, go, site, waiting};
use crate::harness::host::peak;
use crate::harness::http::Http;
use crate::harness::tls::Tls;
use crate::harness::{eventually, host};

/// A frame that says something.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Output(Channel, Vec<u8>),
    End(Vec<u8>),
}

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
    fn next(&mut self) -> Option<Told> {
        loop {
            let mut rest = self.piece.as_slice();
            let told = match self.decoder.next_frame(&mut rest).unwrap() {
                Some(Frame::Idle) => None,
                Some(Frame::Output(channel, bytes)) => Some(Told::Output(channel, bytes.to_vec())),
                Some(Frame::End(json)) => Some(Told::End(json)),
                None => {
                    self.piece = self.http.chunk()?;
                    continue;
                }
            };
            self.piece = rest.to_vec();
            if told.is_some() {
                return told;
            }
        }
    }

    fn rest(&mut self) -> (String, String, Value) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            match self.next().expect("a last frame") {
                Told::Output(Channel::Stdout, bytes) => stdout.extend(bytes),
                Told::Output(Channel::Stderr, bytes) => stderr.extend(bytes),
                Told::End(json) => {
                    let text = |bytes| String::from_utf8(bytes).unwrap();
                    return (text(stdout), text(stderr), serde_json::from_slice(&json).unwrap());
                }
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
        assert_eq!(stream.next(), Some(Told::Output(Channel::Stdout, b"begun\n".to_vec())));
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
    assert_eq!(stream.next(), Some(Told::Output(Channel::Stdout, b"begun\n".to_vec())));
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
fn a_follower_that_reads_nothing_keeps_nobody_out_and_in_the_end_loses_its_stream_and_no_job() {
    let flood = "head -c 16777216 /dev/zero; ";
    let settings = "stall_timeout = 1\nmax_children = 1";
    let site = site().agent(settings).sh("flood", &format!("{flood}{WAIT}")).start();
    let caller = Caller::of(&site);
    let body = json!({"script": "flood", "reqid": "r1", "async": true}).to_string();
    let mut stream = Stream::open(&caller, "POST", "/run", &body);
    let (script, _) = waiting(&site);
    let sockets = || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", site.agent().pid())).unwrap().flatten();
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    };
    let with_it = sockets();
    assert_eq!(caller.result("r1")["status"], "running");
    eventually("the end of its connection", || (sockets() < with_it).then_some(()));
    assert!(host::alive(script));
    while let Some(frame) = stream.next() {
        assert!(!matches!(frame, Told::End(_)), "an answer that was cut has no end");
    }
    go(&site);
    assert_eq!(caller.ended("r1")["exit"], 3);
}

#[test]
fn a_hundred_megabytes_are_followed_whole_and_grow_nobody() {
    let site = site().sh("flood", "head -c 104857600 /dev/zero").agent("max_output = 64KiB").start();
    let caller = Caller::of(&site);
    let body = json!({"script": "flood", "reqid": "r1", "async": true}).to_string();
    let before = peak(site.agent().pid());
    let mut stream = Stream::open(&caller, "POST", "/run", &body);
    let mut bytes = 0;
    let end: Value = loop {
        match stream.next().unwrap() {
            Told::Output(_, piece) => bytes += piece.len(),
            Told::End(json) => break serde_json::from_slice(&json).unwrap(),
        }
    };
    assert_eq!((bytes, &end["status"]), (104_857_600, &json!("done")));
    // The kernel counts with processors of their own: what it tells can be a little less than before.
    let grown = peak(site.agent().pid()).saturating_sub(before);
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
