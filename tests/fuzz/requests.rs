//! Requests to an agent: its own HTTP server with its own limits, routes and verbs, over a stream in memory.
//!
//! Everything behind the handshake is real but the executor, which is not there. Time is the runtime's: it stands still
//! while anything happens and leaps to the next deadline when nothing does, so that a deadline of 30 seconds costs
//! nothing, and a request of half a head is seen to be given up.

use std::future::pending;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ctrl_exec::agent::answer::Answer;
use ctrl_exec::agent::gate::Peer;
use ctrl_exec::agent::orders::{Beginning, Kinship, Orders};
use ctrl_exec::agent::route;
use ctrl_exec::agent::snapshot::{Places, Snapshot};
use ctrl_exec::agent::state::Agent;
use ctrl_exec::audit::{Ident, Logger};
use ctrl_exec::conf::Root;
use ctrl_exec::net::serve::{self, Bounds, Parting};
use ctrl_exec::pki::ca::Ca;
use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::pki::{key, serial};
use ctrl_exec::tls::Proof;
use ctrl_exec::wire::name::AgentName;
use ctrl_exec::wire::ping::Session;
use ctrl_exec::wire::serial::Serial;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::{Map, Value};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// As the agent has them.
const BOUNDS: Bounds = Bounds { head: Duration::from_secs(30), idle: Duration::from_mins(5), streams: 128 };
/// Where time leaps: longer than every deadline of a connection. Where it does not: long enough for a quick answer.
const SILENCE: Duration = if cfg!(not(test)) { Duration::from_hours(1) } else { Duration::from_millis(200) };
/// What the connection holds: no input is larger.
const ROOM: usize = 1 << 20;

/// A trusted serial, and one that is not.
const SERIALS: [&str; 2] = ["16", "bad"];
const TRUST: &str = "16 control-1\nabc control-2\nbad control-3\n";
const REVOKED: &str = "bad\n";
const ALLOWLIST: &str = "ok = /bin/true\nnone = /no/such/script args=none\n";
const CONFIGURATION: &str = "port = 0\ncert = {}/agent.crt\nkey = {}/agent.key\nca = {}/ca.crt\n\
    trusted_dispatchers_path = {}/trust\nrevoked_serials = {}/revoked\nexecutor_socket = {}/no-executor\n[profile default]\n";

/// What every agent here begins with.
struct Ground {
    dir: TempDir,
    snapshot: Snapshot,
    /// That whoever asks has a certificate; which one, its serial says.
    proof: Arc<Proof>,
    runtime: Runtime,
}

static GROUND: LazyLock<Mutex<Ground>> = LazyLock::new(|| Mutex::new(Ground::new()));

impl Ground {
    fn new() -> Self {
        // In memory: what is written is synced, which would be most of the time.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let ca = Ca::create("CA", 10, &serial::fresh().unwrap(), OffsetDateTime::now_utc()).unwrap();
        let key = key::generate().unwrap();
        let request = csr::make(&key, &AgentName::parse("web-01").unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Any).unwrap();
        let certificate = ca.sign_agent(&request, &serial::fresh().unwrap(), 5, OffsetDateTime::now_utc()).unwrap();
        write("agent.crt", &certificate.to_pem());
        write("agent.key", &key.to_pem());
        write("ca.crt", &ca.certificate().to_pem());
        write("trust", TRUST);
        write("revoked", REVOKED);
        write("scripts.conf", ALLOWLIST);
        write("agent.conf", &CONFIGURATION.replace("{}", &dir.path().display().to_string()));
        let mut builder = Builder::new_current_thread();
        builder.enable_all();
        #[cfg(not(test))]
        builder.start_paused(true);
        let log = Logger::to_writer(Ident::Agent, Box::new(Log::default()));
        let (snapshot, _) = Snapshot::load(&places(&dir), "web-01", &log).unwrap();
        let shown = CertificateDer::from(certificate.der().to_vec());
        let proof = Arc::new(snapshot.tls.prove(&shown, UnixTime::now()).unwrap());
        Self { dir, snapshot, proof, runtime: builder.build().unwrap() }
    }

    /// An agent as it starts, and its log.
    fn agent(&self) -> (Arc<Agent>, Log) {
        std::fs::write(self.snapshot.settings.trusted_dispatchers_path.as_path(), TRUST).unwrap();
        let places = places(&self.dir);
        let beginning = Beginning {
            descriptors: 1024,
            file: "/proc/self/exe".into(),
            family: ctrl_exec::sys::process::Family::of(b"fuzz"),
            executor: None,
        };
        let orders = Orders::new(&Kinship::of(&self.snapshot.settings, false), &places, beginning).unwrap();
        let log = Log::default();
        let logger = Logger::to_writer(Ident::Agent, Box::new(log.clone()));
        (Agent::new(places, logger, orders, self.snapshot.clone()), log)
    }
}

fn places(dir: &TempDir) -> Places {
    let file = |name: &str| dir.path().join(name);
    Places { config: file("agent.conf"), allowlist: file("scripts.conf"), root: Root::new(Some(dir.path().to_owned())) }
}

/// What the agent logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One event is one line, whatever is in it.
    fn judge(&self) {
        let text = String::from_utf8(self.bytes().clone()).unwrap();
        for line in text.lines() {
            assert!(line.starts_with("ctrl-exec-agent: ACTION="), "{line:?}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::Write::write(&mut *self.bytes(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// HTTP/1: the first byte says who asks, the second in what pieces the rest arrives.
pub fn request_head(bytes: &[u8]) {
    let Some(([who, pieces], rest)) = bytes.split_first_chunk::<2>() else { return };
    let whole = exchange(*who, &[rest], false);
    if *pieces > 0 && rest.len() <= 16 * 1024 {
        let parts: Vec<&[u8]> = rest.chunks(usize::from(*pieces)).collect();
        let in_pieces = exchange(*who, &parts, false);
        // Where time does not leap, not every answer has come in time.
        assert!(cfg!(test) || in_pieces == whole, "{whole:?}\nin pieces of {pieces}:\n{in_pieces:?}");
    }
}

/// HTTP/2, behind its preface and empty settings: the first byte says who asks.
pub fn http_2(bytes: &[u8]) {
    let Some((who, rest)) = bytes.split_first() else { return };
    exchange(*who, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", rest], true);
}

/// The answers to what a peer sends.
fn exchange(who: u8, parts: &[&[u8]], http_2: bool) -> Vec<(u16, Map<String, Value>)> {
    let ground = GROUND.lock().unwrap_or_else(PoisonError::into_inner);
    let (agent, log) = ground.agent();
    let known = who & 3 != 3;
    let serial = Serial::parse_hex(SERIALS[usize::from(!known)]).unwrap();
    let (address, proof) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Arc::clone(&ground.proof));
    let peer = Peer { address, proof, serial, session: Session::Full };
    let answers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&answers);
    let answer = move |request: Request<Incoming>| {
        let (agent, peer, noted) = (Arc::clone(&agent), peer.clone(), Arc::clone(&noted));
        async move {
            let answer = route::answer(agent, peer, request, |trusted| assert_eq!(trusted, known)).await;
            let (answer, note) = judged(answer, known).await;
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(note);
            answer
        }
    };
    ground.runtime.block_on(async {
        let (near, far) = tokio::io::duplex(ROOM);
        let client = client(near, parts);
        if http_2 {
            tokio::join!(serve::serve_2(far, BOUNDS, pending(), answer), client);
        } else {
            tokio::join!(serve::serve_1(far, BOUNDS, pending(), answer), client);
        }
    });
    log.judge();
    let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
    answers.clone()
}

/// Sends what there is and listens until the agent has no more to say.
async fn client(mut stream: DuplexStream, parts: &[&[u8]]) {
    for part in parts {
        // An agent that has enough may close.
        if stream.write_all(part).await.is_err() {
            break;
        }
        if parts.len() > 2 {
            tokio::task::yield_now().await;
        }
    }
    let mut seen = [0; 4096];
    while let Ok(Ok(1..)) = timeout(SILENCE, stream.read(&mut seen)).await {}
}

/// An answer is one of those that are documented, and a stranger's is always the same.
async fn judged(answer: Answer, known: bool) -> (Response<Full<Bytes>>, (u16, Map<String, Value>)) {
    let status = answer.status().as_u16();
    let documented = [200, 202, 400, 403, 404, 408, 409, 413, 431, 500, 503];
    assert!(documented.contains(&status), "{status}");
    if !known {
        assert!(status == 403 && answer.extensions().get::<Parting>().is_some(), "{status} to a stranger");
    }
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap_or_else(|error| panic!("{error}")).to_bytes();
    let mut said: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"));
    // Signed anew each time.
    said.remove("csr");
    (Response::from_parts(head, Full::new(body)), (status, said))
}
