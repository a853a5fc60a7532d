//! Pairing between the real two ends, as library calls over loopback; and the relay that sits between them.

mod relay;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ctrl_exec::agent::pairing::places::Places;
use ctrl_exec::agent::pairing::target::Target;
use ctrl_exec::agent::pairing::{Confirm, PairFailure, Paired, Progress, Request, request_pairing};
use ctrl_exec::conf::Root;
use ctrl_exec::dispatcher::pairing::decide::{self, Delivery, Overrides};
use ctrl_exec::dispatcher::pairing::session::{End, Notice, Options, Session};
use ctrl_exec::dispatcher::site::Site;
use ctrl_exec::net::exchange::Exchange;
use ctrl_exec::pki::ca::{Ca, DEFAULT_NAME};
use ctrl_exec::pki::cert::Certificate;
use ctrl_exec::pki::code::{self, Transcript};
use ctrl_exec::pki::csr::{self, ExpectedName};
use ctrl_exec::pki::{key, serial};
use ctrl_exec::store::queue::{Form, QueuedRequest};
use ctrl_exec::sys::file::{self, Access};
use ctrl_exec::tls::identity::{Identity, IdentitySlot};
use ctrl_exec::tls::{self, PairingPeers, peer as tls_peer};
use ctrl_exec::wire::limits::PAIRING_BODY;
use ctrl_exec::wire::name::AgentName;
use ctrl_exec::wire::pair::{AgentMessage, DispatcherMessage, EXPORTER_LABEL, NONCE};
use ctrl_exec::wire::{frame, hex};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const NAME: &str = "web.example";

fn write(path: &Path, text: &str) {
    file::create_dir(path.parent().unwrap(), 0o755).unwrap();
    file::write_atomic(path, text.as_bytes(), Access::private()).unwrap();
}

fn new_ca() -> Ca {
    Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), OffsetDateTime::now_utc()).unwrap()
}

/// A dispatcher's certificate and key under this CA, PEM.
fn dispatcher_identity(ca: &Ca) -> (String, String) {
    let key = key::generate().unwrap();
    let request = csr::make(&key, &AgentName::parse("ctrl-exec-dispatcher").unwrap()).unwrap();
    let request = csr::check(&request, ExpectedName::Any).unwrap();
    let certificate = ca.sign_dispatcher(&request, &serial::fresh().unwrap(), 30, OffsetDateTime::now_utc()).unwrap();
    (certificate.to_pem(), key.to_pem())
}

struct World {
    dir: tempfile::TempDir,
    site: Site,
}

impl World {
    fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc/ctrl-exec");
        let ca = new_ca();
        let (cert, key) = dispatcher_identity(&ca);
        for (name, text) in
            [("ca.crt", ca.certificate().to_pem()), ("ca.key", ca.key_pem()), ("d.crt", cert), ("d.key", key)]
        {
            write(&etc.join(name), &text);
        }
        let etc_text = etc.display();
        let conf = format!(
            "cert = {etc_text}/d.crt\nkey = {etc_text}/d.key\nca = {etc_text}/ca.crt\ndispatcher_id = hq\n{extra}"
        );
        write(&etc.join("ctrl-exec.conf"), &conf);
        let root = Root::new(Some(dir.path().to_owned()));
        let (site, _) = Site::load(&etc.join("ctrl-exec.conf"), &root).unwrap();
        Self { dir, site }
    }

    fn places(&self) -> Places {
        let root = Root::new(Some(self.dir.path().join("host")));
        let places = Places::defaults(&root);
        file::create_dir(places.cert.parent().unwrap(), 0o755).unwrap();
        places.check().unwrap();
        places
    }

    fn open(&self) -> Open {
        let options = Options {
            bind: vec!["127.0.0.1".parse().unwrap()],
            port: 0,
            timeout: Duration::from_mins(1),
            original: false,
        };
        let (session, notices) = Session::open(&self.site, &options).unwrap();
        let port = session.port();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(session.run(async { drop(stopped.await) }));
        Open { port, notices, stop, served }
    }

    async fn approve(&self, request: &QueuedRequest) -> Delivery {
        let (site, id) = (self.site.clone(), request.id.to_string());
        let work = move || {
            let approved = decide::approve(&site, &id, Overrides::default()).unwrap();
            decide::delivered(&site, &approved, Duration::from_secs(90)).unwrap()
        };
        tokio::task::spawn_blocking(work).await.unwrap()
    }
}

struct Open {
    port: u16,
    notices: tokio::sync::mpsc::UnboundedReceiver<Notice>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<End>,
}

impl Open {
    async fn queued(&mut self) -> QueuedRequest {
        loop {
            if let Notice::Queued(request) = self.notices.recv().await.unwrap() {
                return *request;
            }
        }
    }

    async fn gone(&mut self) -> String {
        loop {
            if let Notice::Gone(_, why) = self.notices.recv().await.unwrap() {
                return why;
            }
        }
    }

    async fn close(self) -> End {
        self.stop.send(()).unwrap();
        self.served.await.unwrap()
    }
}

/// An agent that is pairing. Its operator sees `code` and says what `say` is told.
struct Agent {
    code: mpsc::Receiver<String>,
    say: mpsc::Sender<bool>,
    progress: Arc<Mutex<Vec<Progress>>>,
    result: JoinHandle<Result<Paired, PairFailure>>,
}

impl Agent {
    fn start(places: &Places, port: u16) -> Self {
        let (shown, code) = mpsc::channel();
        let (say, said) = mpsc::channel();
        let said = Mutex::new(said);
        let question = move |code: &str| {
            shown.send(code.to_owned()).unwrap();
            said.lock().unwrap().recv().unwrap_or(false)
        };
        Self::with(places, port, Confirm::Code(Arc::new(question)), code, say)
    }

    fn with(
        places: &Places,
        port: u16,
        confirm: Confirm,
        code: mpsc::Receiver<String>,
        say: mpsc::Sender<bool>,
    ) -> Self {
        let request = Request {
            dispatcher: Target::parse(&format!("127.0.0.1:{port}"), 1).unwrap(),
            hostname: AgentName::parse(NAME).unwrap(),
            lookup_by: None,
            ip: None,
            original: false,
            confirm,
            patience: None,
        };
        let progress = Arc::new(Mutex::new(Vec::new()));
        let (places, seen) = (places.clone(), Arc::clone(&progress));
        let result = tokio::spawn(async move {
            request_pairing(&request, &places, &move |step| seen.lock().unwrap().push(step)).await
        });
        Self { code, say, progress, result }
    }

    fn unasked(places: &Places, port: u16, confirm: Confirm) -> Self {
        let ((_, code), (say, _)) = (mpsc::channel(), mpsc::channel());
        Self::with(places, port, confirm, code, say)
    }

    fn shown_code(&self) -> String {
        self.code.recv_timeout(Duration::from_secs(90)).unwrap()
    }
}

fn files(places: &Places) -> Vec<PathBuf> {
    let all = [&places.cert, &places.key, &places.ca, &places.trust];
    all.into_iter().filter(|path| path.exists()).cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both_ends_show_one_code_and_end_up_with_files_and_record_that_fit() {
    let world = World::new("cert_days = 77\n");
    let mut open = world.open();
    let places = world.places();
    let agent = Agent::start(&places, open.port);
    let request = open.queued().await;
    assert_eq!((request.form, request.hostname.as_str()), (Form::Strong, NAME));
    assert_eq!(agent.shown_code(), request.code);
    agent.say.send(true).unwrap();
    let Delivery::Registered(record) = world.approve(&request).await else { panic!("not registered") };
    let paired = agent.result.await.unwrap().unwrap();
    assert!(paired.registered && !paired.original);

    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let identity = Identity::load(&read(&places.cert), &read(&places.key)).unwrap();
    let certificate = identity.certificate();
    assert_eq!(certificate.common_name(), Some(NAME));
    let days = (certificate.not_after() - OffsetDateTime::now_utc()).whole_days();
    assert!((76..=77).contains(&days), "cert_days counts, not {days}");
    assert_eq!(read(&places.ca), world.site.anchor().unwrap().certificate().to_pem());
    let own = world.site.certificate().unwrap().serial().clone();
    assert!(read(&places.trust).ends_with(&format!("\n{own} hq\n")));

    assert_eq!(record.hostname.as_str(), NAME);
    assert_eq!((record.reqid.as_str(), record.port), (request.id.as_str(), 7443));
    assert_eq!(record.cert_serial.as_deref(), Some(certificate.serial().as_str()));
    assert_eq!(record.cert_cn.as_deref(), Some(NAME));
    assert_eq!(record.cert_key_sha256.as_deref(), Some(hex::encode(&certificate.public_key().sha256()).as_str()));
    assert_eq!((record.serial_status.as_str(), record.expiry.clone()), ("current", certificate.expiry_text()));
    assert_eq!(record.dispatcher_serial, own.to_string());
    assert_eq!(record.extra["serial_confirmed"], record.paired.as_str());
    let ca_serial = read(&world.site.settings.ca_dir.join("ca.serial"));
    assert_eq!(ca_serial, format!("{}\n", certificate.serial().as_str().to_uppercase()));
    assert!(world.site.queue.list().unwrap().is_empty());
    assert_eq!(open.close().await, End::Stopped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_agents_operator_may_answer_after_the_dispatchers() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let agent = Agent::start(&places, open.port);
    let request = open.queued().await;
    agent.shown_code();
    let approved = decide::approve(&world.site, request.id.as_str(), Overrides::default()).unwrap();
    let site = world.site.clone();
    let early = tokio::task::spawn_blocking(move || {
        (decide::delivered(&site, &approved, Duration::from_millis(400)).unwrap(), approved)
    });
    let (early, approved) = early.await.unwrap();
    assert_eq!(early, Delivery::Waiting);
    assert!(world.site.registry.get(&request.hostname).unwrap().is_none() && files(&places).is_empty());
    agent.say.send(true).unwrap();
    let site = world.site.clone();
    let late = tokio::task::spawn_blocking(move || decide::delivered(&site, &approved, Duration::from_secs(90)));
    assert!(matches!(late.await.unwrap().unwrap(), Delivery::Registered(_)));
    assert!(agent.result.await.unwrap().unwrap().registered);
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agent_whose_operator_says_no_is_neither_stored_nor_registered() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let agent = Agent::start(&places, open.port);
    let request = open.queued().await;
    let approved = decide::approve(&world.site, request.id.as_str(), Overrides::default()).unwrap();
    agent.say.send(false).unwrap();
    assert!(matches!(agent.result.await.unwrap(), Err(PairFailure::CodeRefused)));
    assert!(open.gone().await.contains("another code"));
    let site = world.site.clone();
    let delivery = tokio::task::spawn_blocking(move || decide::delivered(&site, &approved, Duration::from_secs(90)));
    assert_eq!(delivery.await.unwrap().unwrap(), Delivery::NotTaken);
    assert!(files(&places).is_empty());
    assert!(world.site.registry.list().unwrap().records.is_empty());
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_approval_that_the_agent_has_not_taken_dies_with_the_session() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let agent = Agent::start(&places, open.port);
    let request = open.queued().await;
    agent.shown_code();
    decide::approve(&world.site, request.id.as_str(), Overrides::default()).unwrap();
    open.close().await;
    let error = agent.result.await.unwrap().unwrap_err();
    assert!(matches!(&error, PairFailure::Denied(why) if why == "pairing mode ended"), "{error}");
    assert!(files(&places).is_empty() && world.site.registry.list().unwrap().records.is_empty());
    assert!(world.site.queue.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pinned_ca_needs_no_question_and_another_ca_is_refused() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let ca = world.site.anchor().unwrap().certificate().sha256();
    let wrong = Agent::unasked(&places, open.port, Confirm::Ca([7; 32]));
    assert!(matches!(wrong.result.await.unwrap(), Err(PairFailure::OtherCa { .. })));
    assert!(files(&places).is_empty());
    let right = Agent::unasked(&places, open.port, Confirm::Ca(ca));
    let request = open.queued().await;
    assert!(matches!(world.approve(&request).await, Delivery::Registered(_)));
    assert!(right.result.await.unwrap().unwrap().registered);
    let steps = right.progress.lock().unwrap().clone();
    assert!(steps.contains(&Progress::Code(request.code, false)), "the code is shown all the same");
    open.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_denial_reaches_the_agent_in_the_operators_name() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    let agent = Agent::start(&places, open.port);
    let request = open.queued().await;
    decide::deny(&world.site, request.id.as_str()).unwrap();
    let error = agent.result.await.unwrap().unwrap_err();
    assert!(matches!(&error, PairFailure::Denied(why) if why == "rejected by operator"), "{error}");
    assert!(files(&places).is_empty());
    open.close().await;
}

/// A relay with a certificate of a CA of its own: to the agent it is a dispatcher, to the dispatcher an agent.
struct Relay {
    port: u16,
    listener: TcpListener,
    ca: Ca,
    identity: Identity,
}

impl Relay {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ca = new_ca();
        let (cert, key) = dispatcher_identity(&ca);
        let port = listener.local_addr().unwrap().port();
        Self { port, listener, ca, identity: Identity::load(&cert, &key).unwrap() }
    }

    async fn both(
        &self,
        dispatcher: u16,
    ) -> (Exchange<server::TlsStream<TcpStream>>, Exchange<client::TlsStream<TcpStream>>) {
        let config = tls::pairing_server(IdentitySlot::new(self.identity.clone()), PairingPeers::Own).unwrap();
        let (victim, _) = self.listener.accept().await.unwrap();
        let victim = TlsAcceptor::from(config).accept(victim).await.unwrap();
        let config = tls::pairing_client(PairingPeers::Own).unwrap();
        let real = TcpStream::connect(("127.0.0.1", dispatcher)).await.unwrap();
        let real = TlsConnector::from(config).connect(tls::any_name(), real).await.unwrap();
        (Exchange::new(victim), Exchange::new(real))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pairing_again_replaces_the_record_and_keeps_the_other_dispatchers() {
    let world = World::new("");
    let mut open = world.open();
    let places = world.places();
    write(&places.trust, "abcdef other\n");
    for round in 0..2 {
        let agent = Agent::unasked(&places, open.port, Confirm::No);
        let request = open.queued().await;
        let (site, id) = (world.site.clone(), request.id.to_string());
        let overrides = Overrides { ip: "192.0.2.9".parse().ok(), agent_port: Some(7000), lookup_by: None };
        let work = move || {
            let approved = decide::approve(&site, &id, overrides).unwrap();
            let delivery = decide::delivered(&site, &approved, Duration::from_secs(90)).unwrap();
            (approved, delivery)
        };
        let (approved, delivery) = tokio::task::spawn_blocking(work).await.unwrap();
        assert_eq!(approved.replaces.is_some(), round == 1, "the operator is told");
        let Delivery::Registered(record) = delivery else { panic!("{delivery:?}") };
        assert_eq!((record.ip.as_str(), record.port), ("192.0.2.9", 7000));
        agent.result.await.unwrap().unwrap();
    }
    let trust = std::fs::read_to_string(&places.trust).unwrap();
    assert!(trust.contains("abcdef other\n") && trust.contains(" hq\n"));
    assert_eq!(world.site.registry.list().unwrap().records.len(), 1);
    open.close().await;
}
