//! The listener against clients made by hand: agents of ours, agents of the original, and strangers.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

    async fn open(&self) -> Open {
        self.open_for(Duration::from_secs(60)).await
    }

    async fn open_for(&self, timeout: Duration) -> Open {
        let bind = vec!["127.0.0.1".parse().unwrap()];
        let options = Options { bind, port: 0, timeout, original: false };
        let (session, notices) = Session::open(&self.site, &options).await.unwrap();
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
        let delivery = decide::delivered(&site, &approved, Duration::from_secs(15)).unwrap();
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
async fn an_agent_of_the_original_is_paired_only_where_the_operator_said_so() {
    let csr = new_request(&key::generate_rsa().unwrap(), NAME);
    let closed = World::new("");
    let open = closed.open().await;
    let mut agent = Exchange::new(open.tls(false).await);
    agent.send(&post(&original_body(&csr, NAME))).await.unwrap();
    let refused = answer(&mut agent).await;
    assert_eq!(refused.status, "error");
    assert!(refused.reason.unwrap().contains("pairing-mode --original"));
    open.close().await;
    assert!(closed.log.text().contains("ACTION=pair-reject IP=127.0.0.1 REASON=original-form"));

    let world = World::new("pairing_original = yes\n");
    let mut open = world.open().await;
    // The original's agent looks first whether anybody is there.
    drop(TcpStream::connect(open.address).await.unwrap());
    let mut agent = Exchange::new(open.tls(false).await);
    agent.send(&post(&original_body(&csr, NAME))).await.unwrap();
    let pending = answer(&mut agent).await;
    let request = open.queued().await;
    assert_eq!((pending.status.as_str(), pending.reqid.unwrap()), ("pending", request.id.to_string()));
    assert_eq!((request.form, request.code.clone()), (Form::Original, code::original(&csr)));
    let taken = tokio::spawn(async move { answer(&mut agent).await });
    let (_, delivery) = approve(&world.site, &request).await;
    let Delivery::Registered(record) = delivery else { panic!("{delivery:?}") };
    assert_eq!((record.ip.as_str(), record.port), ("10.1.2.3", 7450));
    let approved = taken.await.unwrap();
    assert_eq!(approved.status, "approved");
    assert_eq!(approved.nonce.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert_eq!(approved.dispatcher_serial.unwrap(), world.site.certificate().unwrap().serial().to_string());
    assert!(approved.cert.unwrap().ends_with("-----END CERTIFICATE-----\n"));
    assert!(approved.ca.is_some() && approved.dispatcher_id.is_some());
    open.close().await;
    let log = world.log.text();
    assert!(
        log.contains("ACTION=pair-request AGENT=web.example FORM=original IP=127.0.0.1 REPORTED_IP=10.1.2.3"),
        "{log}"
    );
    assert!(!log.contains("pair-reject"), "a look at the port is not worth a word: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_original_refuses_is_refused_in_its_words() {
    let world = World::new("pairing_original = yes\npairing_rate_limit_disable = yes\n");
    let open = world.open().await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    let too_large = format!("POST /pair HTTP/1.0\r\nContent-Length: {}\r\n\r\n", PAIRING_BODY + 1).into_bytes();
    for (message, reason) in [
        (too_large, "request too large"),
        (post("{}"), "invalid request"),
        (post("not json"), "invalid request"),
        (b"GET / HTTP/1.0\r\n\r\n".to_vec(), "invalid request"),
        (b"a: b\n".repeat(200), "invalid request"),
        (post(&original_body(&csr, "../x")), "invalid hostname"),
        (post(&original_body("-----BEGIN", NAME)), "Invalid CSR format"),
        (post(&original_body(&csr, "other.example")), "CSR subject CN does not match"),
    ] {
        let mut agent = Exchange::new(open.tls(false).await);
        agent.send(&message).await.unwrap();
        let refused = answer(&mut agent).await;
        assert_eq!(refused.status, "error");
        assert!(refused.reason.as_deref().unwrap().starts_with(reason), "{refused:?}, expected {reason}");
    }
    assert!(world.site.queue.list().unwrap().is_empty());
    open.close().await;
    for reason in ["body-too-large", "invalid-request", "invalid-hostname", "csr"] {
        assert!(world.log.text().contains(&format!("REASON={reason}")), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_nonce_that_does_not_open_its_commitment_is_refused() {
    let world = World::new("");
    let open = world.open().await;
    let mut agent = Own::connect(&open).await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    agent.hello(&csr, NAME).await;
    assert!(denied(agent.open_with([6; NONCE]).await).contains("commitment"));
    open.close().await;
    assert!(world.log.text().contains("ACTION=pair-reject AGENT=web.example IP=127.0.0.1 REASON=commitment"));
    assert!(world.site.queue.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_address_that_leaves_commitments_unopened_is_cut_off_for_the_session() {
    let world = World::new("pairing_rate_limit_disable = yes\n");
    let open = world.open().await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    for _ in 0..super::admission::UNOPENED {
        let mut agent = Own::connect(&open).await;
        assert!(matches!(agent.hello(&csr, NAME).await, DispatcherMessage::Challenge { .. }));
    }
    let mut agent = Own::connect(&open).await;
    assert!(denied(agent.hello(&csr, NAME).await).contains("too many pairing attempts"));
    open.close().await;
    assert!(world.log.text().contains("REASON=unopened-commitments"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_are_judged_before_they_are_queued() {
    let world = World::new("");
    let open = world.open().await;
    let csr = new_request(&key::generate().unwrap(), "other.example");
    let mut agent = Own::connect(&open).await;
    assert!(denied(agent.hello(&csr, NAME).await).contains("does not match the expected identity"));
    let mut agent = Own::connect(&open).await;
    agent.say(&AgentMessage::Stored).await;
    assert!(denied(agent.hear().await).contains("invalid request"));
    let mut agent = Own::connect(&open).await;
    agent.0.send(&[0x7f, 0xff, 0xff, 0xff]).await.unwrap();
    assert!(denied(agent.hear().await).contains("too large"));
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_that_leaves_is_forgotten_at_once_and_never_registered() {
    let world = World::new("pairing_original = yes\n");
    let mut open = world.open().await;
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
    let mut open = world.open().await;
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
    let mut open = world.open().await;
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
    let mut open = world.open_for(Duration::from_millis(1500)).await;
    let mut agent = Own::pending(&open).await;
    let request = open.queued().await;
    // A stranger who says nothing, and one in the middle of a handshake.
    let _silent = TcpStream::connect(open.address).await.unwrap();
    let mut half = TcpStream::connect(open.address).await.unwrap();
    half.write_all(&[0x16, 3, 1, 2]).await.unwrap();
    assert_eq!(denied(agent.hear().await), "pairing mode ended");
    assert_eq!(open.served.await.unwrap(), End::TimedOut);
    assert!(world.site.queue.list().unwrap().is_empty() && !world.site.queue.is_served().unwrap());
    let late = decide::approve(&world.site, request.id.as_str(), Overrides::default());
    assert!(matches!(late, Err(DecideError::Unknown(_))));
    assert!(world.log.text().contains("ACTION=pairing-mode-timeout PORT="));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strangers_who_are_silent_or_talk_nonsense_delay_nobody() {
    let world = World::new("");
    let mut open = world.open().await;
    let _silent = TcpStream::connect(open.address).await.unwrap();
    let mut nonsense = TcpStream::connect(open.address).await.unwrap();
    nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = nonsense.read_to_end(&mut rest).await;
    let _half = open.tls(true).await;
    let started = std::time::Instant::now();
    let _agent = Own::pending(&open).await;
    open.queued().await;
    assert!(started.elapsed() < Duration::from_secs(8), "less than any stranger's deadline");
    open.close().await;
    assert!(world.log.text().contains("REASON=handshake"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_and_a_hasty_address_are_told_or_dropped() {
    let world = World::new("pairing_max_queue = 1\npairing_rate_limit_volume = 3/60/300\n");
    let mut open = world.open().await;
    let _first = Own::pending(&open).await;
    open.queued().await;
    let mut second = Own::connect(&open).await;
    let csr = new_request(&key::generate().unwrap(), NAME);
    second.hello(&csr, NAME).await;
    assert_eq!(denied(second.open_with([5; NONCE]).await), "pairing queue full");
    let _third = open.tls(true).await;
    let mut fourth = TcpStream::connect(open.address).await.unwrap();
    assert_eq!(fourth.read(&mut [0]).await.unwrap_or(0), 0, "closed without a word");
    open.close().await;
    let log = world.log.text();
    assert!(
        log.contains("REASON=queue-full") && log.contains("ACTION=rate-block PEER=127.0.0.1 REASON=volume"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_address_has_four_places_and_a_waiting_request_needs_none() {
    let world = World::new("pairing_rate_limit_disable = yes\n");
    let mut open = world.open().await;
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(Own::pending(&open).await);
        open.queued().await;
    }
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(open.tls(true).await);
    }
    let mut fifth = TcpStream::connect(open.address).await.unwrap();
    assert_eq!(fifth.read(&mut [0]).await.unwrap_or(0), 0);
    open.close().await;
    assert!(world.log.text().contains("REASON=too-many-connections"));
}

#[tokio::test]
async fn an_operator_learns_at_once_what_a_later_approval_would_lack() {
    let open = async |world: &World| {
        let options = Options { bind: Vec::new(), port: 0, timeout: Duration::from_secs(1), original: false };
        Session::open(&world.site, &options).await.map(drop)
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
    assert!(matches!(Session::open(&site, &options).await.map(drop), Err(SessionError::TwoCas)));
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
