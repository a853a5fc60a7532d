//! The listener against clients made by hand: agents of ours, agents of the original, and strangers.

mod original;
mod strangers;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::decide::{self, DecideError, Delivery, Overrides};
use super::session::{End, Notice, Options, Session, SessionError};
use crate::audit::{Ident, Logger};
use crate::conf::Root;
use crate::dispatcher::site::Site;
use crate::net::exchange::Exchange;
use crate::pki::ca::{Ca, DEFAULT_NAME};
use crate::pki::code;
use crate::pki::csr::{self, ExpectedName};
use crate::pki::key::{self, PrivateKey};
use crate::pki::serial;
use crate::store::queue::{Form, QueuedRequest};
use crate::sys::file::{self, Access};
use crate::tls::{self, PairingPeers, peer as tls_peer};
use crate::wire::limits::PAIRING_BODY;
use crate::wire::name::AgentName;
use crate::wire::pair::{AgentMessage, Applicant, DispatcherMessage, EXPORTER_LABEL, NONCE, OriginalAnswer};
use crate::wire::{frame, hex};

const NAME: &str = "web.example";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct World {
    _dir: tempfile::TempDir,
    site: Site,
    log: Log,
}

fn new_ca() -> Ca {
    Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), OffsetDateTime::now_utc()).unwrap()
}

impl World {
    fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc/ctrl-exec");
        file::create_dir(&etc, 0o755).unwrap();
        let (ca, key) = (new_ca(), key::generate().unwrap());
        let request = csr::make(&key, &AgentName::parse("ctrl-exec-dispatcher").unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Any).unwrap();
        let own = ca.sign_dispatcher(&request, &serial::fresh().unwrap(), 30, OffsetDateTime::now_utc()).unwrap();
        let at = etc.display();
        let conf = format!("cert = {at}/d.crt\nkey = {at}/d.key\nca = {at}/ca.crt\n{extra}");
        for (name, text) in [
            ("ca.crt", ca.certificate().to_pem()),
            ("ca.key", ca.key_pem()),
            ("d.crt", own.to_pem()),
            ("d.key", key.to_pem()),
            ("ctrl-exec.conf", conf),
        ] {
            file::write_atomic(&etc.join(name), text.as_bytes(), Access::private()).unwrap();
        }
        let root = Root::new(Some(dir.path().to_owned()));
        let (mut site, _) = Site::load(&etc.join("ctrl-exec.conf"), &root).unwrap();
        let log = Log::default();
        site.log = Logger::to_writer(Ident::Dispatcher, Box::new(log.clone()));
        Self { _dir: dir, site, log }
    }

    fn open(&self) -> Open {
        self.open_for(Duration::from_mins(1))
    }

    fn open_for(&self, timeout: Duration) -> Open {
        let bind = vec!["127.0.0.1".parse().unwrap()];
        let options = Options { bind, port: 0, timeout, original: false };
        let (session, notices) = Session::open(&self.site, &options).unwrap();
        let address = session.addresses()[0];
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(session.run(async { drop(stopped.await) }));
        Open { address, notices, stop, served }
    }
}

struct Open {
    address: SocketAddr,
    notices: mpsc::UnboundedReceiver<Notice>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<End>,
}

impl Open {
    async fn queued(&mut self) -> QueuedRequest {
        match self.notices.recv().await.unwrap() {
            Notice::Queued(request) => *request,
            other => panic!("{other:?}"),
        }
    }

    async fn close(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.served.await.unwrap(), End::Stopped);
    }

    /// A connection from another of this host's own addresses.
    async fn tcp_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn tls(&self, own: bool) -> TlsStream<TcpStream> {
        let mut config = (*tls::pairing_client(PairingPeers::OwnAndOriginal).unwrap()).clone();
        if !own {
            config.alpn_protocols.clear();
        }
        let stream = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(tls::any_name(), stream).await.unwrap()
    }
}

fn new_request(key: &PrivateKey, name: &str) -> String {
    csr::make(key, &AgentName::parse(name).unwrap()).unwrap()
}

/// An agent of ours, made by hand.
struct Own(Exchange<TlsStream<TcpStream>>);

impl Own {
    async fn connect(open: &Open) -> Self {
        Self(Exchange::new(open.tls(true).await))
    }

    async fn say(&mut self, message: &AgentMessage) {
        // The listener may be gone already, which the next answer tells.
        let _ = self.0.send(&frame::encode(message, PAIRING_BODY).unwrap()).await;
    }

    async fn hear(&mut self) -> DispatcherMessage {
        frame::decode(&self.0.frame(PAIRING_BODY).await.unwrap()).unwrap()
    }

    async fn hello(&mut self, csr: &str, name: &str) -> DispatcherMessage {
        let exporter = tls_peer::exporter(self.0.stream().get_ref().1, EXPORTER_LABEL, &[]).unwrap();
        let commitment = hex::encode(&code::commitment(&exporter, csr, &[5; NONCE]));
        let hostname = AgentName::parse(name).unwrap();
        let applicant = Applicant { hostname, csr: csr.to_owned(), lookup_by: None, port: None, ip: None };
        self.say(&AgentMessage::Hello { applicant, commitment }).await;
        self.hear().await
    }

    async fn open_with(&mut self, nonce: [u8; NONCE]) -> DispatcherMessage {
        self.say(&AgentMessage::Open { nonce: hex::encode(&nonce) }).await;
        self.hear().await
    }

    async fn pending(open: &Open) -> Self {
        let mut agent = Self::connect(open).await;
        let csr = new_request(&key::generate().unwrap(), NAME);
        assert!(matches!(agent.hello(&csr, NAME).await, DispatcherMessage::Challenge { .. }));
        assert!(matches!(agent.open_with([5; NONCE]).await, DispatcherMessage::Pending { .. }));
        agent
    }
}

fn denied(message: DispatcherMessage) -> String {
    match message {
        DispatcherMessage::Denied { reason } => reason,
        other => panic!("{other:?}"),
    }
}

async fn approve(site: &Site, request: &QueuedRequest) -> (decide::Approved, Delivery) {
    let (site, id) = (site.clone(), request.id.to_string());
    let work = move || {
        let approved = decide::approve(&site, &id, Overrides::default()).unwrap();
        let delivery = decide::delivered(&site, &approved, Duration::from_secs(90)).unwrap();
        (approved, delivery)
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// An HTTP request as the original's agent sends it.
fn post(body: &str) -> Vec<u8> {
    format!("POST /pair HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

fn original_body(csr: &str, name: &str) -> String {
    let nonce = "0123456789abcdef0123456789abcdef";
    serde_json::json!({ "hostname": name, "csr": csr, "nonce": nonce, "port": "7450", "ip": "10.1.2.3" }).to_string()
}

async fn answer(exchange: &mut Exchange<TlsStream<TcpStream>>) -> OriginalAnswer {
    serde_json::from_slice(&exchange.http_body(PAIRING_BODY).await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_that_leaves_is_forgotten_at_once_and_never_registered() {
    let world = World::new("pairing_original = yes\n");
    let mut open = world.open();
    let agent = Own::pending(&open).await;
    let request = open.queued().await;
    drop(agent);
    assert!(matches!(open.notices.recv().await.unwrap(), Notice::Gone(id, _) if id == request.id));
    let mut agent = Exchange::new(open.tls(false).await);
    agent.send(&post(&original_body(&request.csr, NAME))).await.unwrap();
    answer(&mut agent).await;
    let second = open.queued().await;
    drop(agent);
    assert!(matches!(open.notices.recv().await.unwrap(), Notice::Gone(id, _) if id == second.id));
    open.close().await;
    for request in [request, second] {
        let late = decide::approve(&world.site, request.id.as_str(), Overrides::default());
        assert!(matches!(late, Err(DecideError::Unknown(_))));
    }
    assert!(world.site.registry.list().unwrap().records.is_empty());
    assert_eq!(world.log.text().matches("REASON=client-left").count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_that_takes_its_certificate_and_leaves_without_a_word_is_not_registered() {
    let world = World::new("");
    let mut open = world.open();
    let mut agent = Own::pending(&open).await;
    let request = open.queued().await;
    let taking = tokio::spawn(async move { matches!(agent.hear().await, DispatcherMessage::Approved { .. }) });
    let (approved, delivery) = approve(&world.site, &request).await;
    assert!(taking.await.unwrap());
    assert_eq!(delivery, Delivery::NotTaken);
    assert!(world.site.registry.get(&approved.record.hostname).unwrap().is_none());
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_counts_once_and_ids_are_no_paths() {
    let world = World::new("");
    let mut open = world.open();
    let mut agent = Own::pending(&open).await;
    let request = open.queued().await;
    for id in ["../x", "", "nobody", "../../etc/passwd"] {
        let error = decide::approve(&world.site, id, Overrides::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("No pending request '{id}'"));
        assert!(matches!(decide::deny(&world.site, id), Err(DecideError::Unknown(_))));
    }
    decide::approve(&world.site, request.id.as_str(), Overrides::default()).unwrap();
    let second = decide::approve(&world.site, request.id.as_str(), Overrides::default());
    assert!(matches!(second, Err(DecideError::Answered(_))), "{second:?}");
    assert!(matches!(decide::deny(&world.site, request.id.as_str()), Err(DecideError::Answered(_))));
    assert!(matches!(agent.hear().await, DispatcherMessage::Approved { .. }));
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_end_of_the_session_is_the_end_of_every_request() {
    let world = World::new("");
    let mut open = world.open_for(Duration::from_secs(6));
    let mut agent = Own::pending(&open).await;
    let request = open.queued().await;
    // A stranger who says nothing, and one in the middle of a handshake.
    let _silent = TcpStream::connect(open.address).await.unwrap();
    let mut half = TcpStream::connect(open.address).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    assert_eq!(denied(agent.hear().await), "pairing mode ended");
    assert_eq!(open.served.await.unwrap(), End::TimedOut);
    assert!(world.site.queue.list().unwrap().is_empty());
    // A process that another test has forked has the session's lock for a moment more.
    let deadline = Instant::now() + Duration::from_mins(1);
    while world.site.queue.is_served().unwrap() {
        assert!(Instant::now() < deadline, "the session's lock is not let go of");
        tokio::task::yield_now().await;
    }
    let late = decide::approve(&world.site, request.id.as_str(), Overrides::default());
    assert!(matches!(late, Err(DecideError::Unknown(_))));
    assert!(world.log.text().contains("ACTION=pairing-mode-timeout PORT="));
}

#[tokio::test]
async fn an_operator_learns_at_once_what_a_later_approval_would_lack() {
    let open = async |world: &World| {
        let options = Options { bind: Vec::new(), port: 0, timeout: Duration::from_secs(1), original: false };
        Session::open(&world.site, &options).map(drop)
    };
    let world = World::new("");
    open(&world).await.unwrap();
    file::remove(&world.site.settings.ca_dir.join("ca.key")).unwrap();
    assert!(matches!(open(&world).await, Err(SessionError::Site(_))));
    let world = World::new("");
    let other = new_ca();
    let at = |name: &str| world.site.settings.ca_dir.join(name);
    file::write_atomic(&at("other.crt"), other.certificate().to_pem().as_bytes(), Access::public()).unwrap();
    let text = std::fs::read_to_string(&world.site.settings.file).unwrap().replace("/ca.crt", "/other.crt");
    file::write_atomic(&world.site.settings.file, text.as_bytes(), Access::public()).unwrap();
    let (site, _) = Site::load(&world.site.settings.file, &Root::default()).unwrap();
    let mut settings = site.settings.clone();
    settings.ca_dir = world.site.settings.ca_dir.clone();
    let site = Site { settings, ..site };
    let options = Options { bind: Vec::new(), port: 0, timeout: Duration::from_secs(1), original: false };
    assert!(matches!(Session::open(&site, &options).map(drop), Err(SessionError::TwoCas)));
}

#[test]
fn an_answer_that_nobody_could_deliver_is_not_given() {
    let world = World::new("");
    let request = QueuedRequest {
        id: crate::wire::name::RequestId::parse("abc").unwrap(),
        hostname: AgentName::parse(NAME).unwrap(),
        ip: "127.0.0.1".parse().unwrap(),
        source_ip: "127.0.0.1".parse().unwrap(),
        csr: String::new(),
        nonce: String::new(),
        lookup_by: None,
        port: None,
        received: String::new(),
        code: String::new(),
        reverse_dns: String::new(),
        reverse_confirmed: 0,
        form: Form::Strong,
    };
    world.site.queue.add(&request, 9).unwrap();
    let error = decide::approve(&world.site, "abc", Overrides::default()).unwrap_err();
    assert!(matches!(error, DecideError::NoSession(_)), "{error}");
    decide::deny(&world.site, "abc").unwrap();
    assert!(world.site.queue.list().unwrap().is_empty());
}
