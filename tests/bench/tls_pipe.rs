//! The floor under a stream: the same bytes through a pipe, a connection of the same TLS library, and out.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ctrl_exec::tls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::runtime::{Builder, Runtime};

use crate::process::{Watch, own_processor};
use crate::{floor, helper};

/// How much is read at once.
const PIECE: usize = 64 * 1024;

/// Copies so many bytes between two processes: how long it takes, and the processor time of both, milliseconds.
pub(crate) fn copy(root: &Path, size: &str) -> (Duration, u64) {
    let root = root.display().to_string();
    let mut source = helper::start("source", &[&root, size]);
    let mut port = String::new();
    BufReader::new(source.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let started = Instant::now();
    let mut sink = helper::start("sink", &[&root, port.trim(), size]);
    drop(sink.stdout.take());
    let pids = [source.id(), sink.id()];
    let watch = Watch::start(move || vec![("source", own_processor(pids[0])), ("sink", own_processor(pids[1]))]);
    assert!(sink.wait().unwrap().success() && source.wait().unwrap().success());
    (started.elapsed(), watch.end().values().sum())
}

/// The sending helper: `ROOT SIZE`.
pub(crate) fn source(words: &[&str]) {
    let [root, size] = *words else { unreachable!("two words") };
    runtime().block_on(async {
        let (acceptor, _) = floor::ends(Path::new(root));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        let mut head = Command::new("/usr/bin/head");
        let mut head = head.args(["-c", size, "/dev/zero"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = head.stdout.take().unwrap();
        let mut piece = vec![0; PIECE];
        loop {
            let count = output.read(&mut piece).await.unwrap();
            let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            stream.write_all(bytes).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert!(head.wait().await.unwrap().success());
    });
}

/// The receiving helper: `ROOT PORT SIZE`.
pub(crate) fn sink(words: &[&str]) {
    let [root, port, size] = *words else { unreachable!("three words") };
    let mut left: u64 = size.parse().unwrap();
    runtime().block_on(async {
        let (_, connector) = floor::ends(Path::new(root));
        let stream = TcpStream::connect(("127.0.0.1", port.parse::<u16>().unwrap())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut stream = connector.connect(tls::any_name(), stream).await.unwrap();
        let mut out = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        let mut piece = vec![0; PIECE];
        loop {
            let count = stream.read(&mut piece).await.unwrap();
            let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            out.write_all(bytes).unwrap();
            left -= u64::try_from(bytes.len()).unwrap();
        }
    });
    assert_eq!(left, 0);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}
