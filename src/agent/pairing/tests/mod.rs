//! The agent's end against dispatchers made by hand: ours, the original's, and false ones.

mod original;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::judge::Unsound;
use super::places::Places;
use super::target::Target;
use super::{Confirm, PairFailure, Paired, Progress, Request, keep, request_pairing};
use crate::conf::Root;
use crate::net::exchange::Exchange;
use crate::pki::ca::{Ca, DEFAULT_NAME};
use crate::pki::csr::{self, CheckedCsr, ExpectedName};
use crate::pki::key::KeyKind;
use crate::pki::testing::Openssl;
use crate::pki::{code, key, serial};
use crate::sys::file;
use crate::tls::identity::{Identity, IdentitySlot};
use crate::tls::{self, PairingPeers};
use crate::wire::frame;
use crate::wire::limits::PAIRING_BODY;
use crate::wire::name::AgentName;
use crate::wire::pair::{AgentMessage, DispatcherMessage, OriginalAnswer, OriginalRequest};

const NAME: &str = "web.example";
const REQID: &str = "0123456789abcdef";

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn new_ca() -> Ca {
    Ca::create(DEFAULT_NAME, 3650, &serial::fresh().unwrap(), now()).unwrap()
}

fn checked(request: &str) -> CheckedCsr {
    csr::check(request, ExpectedName::Any).unwrap()
}

fn request_for(name: &str) -> CheckedCsr {
    checked(&csr::make(&key::generate().unwrap(), &AgentName::parse(name).unwrap()).unwrap())
}

fn signed(ca: &Ca, request: &CheckedCsr) -> String {
    ca.sign_agent(request, &serial::fresh().unwrap(), 30, now()).unwrap().to_pem()
}

/// A dispatcher made by hand.
struct Dispatcher {
    listener: TcpListener,
    ca: Ca,
    identity: Identity,
}

type Talk = Exchange<TlsStream<TcpStream>>;

impl Dispatcher {
    async fn new() -> Self {
        let ca = new_ca();
        let key = key::generate().unwrap();
        let request = checked(&csr::make(&key, &AgentName::parse("ctrl-exec-dispatcher").unwrap()).unwrap());
        let own = ca.sign_dispatcher(&request, &serial::fresh().unwrap(), 30, now()).unwrap();
        let identity = Identity::load(&own.to_pem(), &key.to_pem()).unwrap();
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), ca, identity }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn serial(&self) -> String {
        self.identity.certificate().serial().to_string()
    }

    async fn accept(&self, own: bool) -> Talk {
        let config = tls::pairing_server(IdentitySlot::new(self.identity.clone()), PairingPeers::OwnAndOriginal);
        let mut config = (*config.unwrap()).clone();
        if !own {
            config.alpn_protocols.clear();
        }
        let (stream, _) = self.listener.accept().await.unwrap();
        Exchange::new(TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap())
    }

    /// The strong form up to the pending answer; the agent's request.
    async fn pending(&self, challenge_ca: &str) -> (Talk, CheckedCsr) {
        let mut talk = self.accept(true).await;
        let AgentMessage::Hello { applicant, .. } = hear(&mut talk).await else { panic!("no hello") };
        let nonce = "11".repeat(32);
        say(&mut talk, &DispatcherMessage::Challenge { nonce, ca: challenge_ca.to_owned() }).await;
        assert!(matches!(hear(&mut talk).await, AgentMessage::Open { .. }));
        say(&mut talk, &DispatcherMessage::Pending { reqid: REQID.to_owned() }).await;
        (talk, checked(&applicant.csr))
    }

    fn approved(&self, request: &CheckedCsr) -> Approved {
        Approved { cert: signed(&self.ca, request), serial: self.serial(), id: "hq".to_owned() }
    }
}

#[derive(Clone)]
struct Approved {
    cert: String,
    serial: String,
    id: String,
}

impl Approved {
    fn message(self) -> DispatcherMessage {
        DispatcherMessage::Approved { cert: self.cert, dispatcher_serial: self.serial, dispatcher_id: self.id }
    }
}

async fn hear(talk: &mut Talk) -> AgentMessage {
    frame::decode(&talk.frame(PAIRING_BODY).await.unwrap()).unwrap()
}

async fn say(talk: &mut Talk, message: &DispatcherMessage) {
    talk.send(&frame::encode(message, PAIRING_BODY).unwrap()).await.unwrap();
}

struct Host {
    _dir: tempfile::TempDir,
    places: Places,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::defaults(&Root::new(Some(dir.path().to_owned())));
        file::create_dir(places.cert.parent().unwrap(), 0o755).unwrap();
        places.check().unwrap();
        Self { _dir: dir, places }
    }

    fn has_nothing(&self) -> bool {
        let places = &self.places;
        let all = [&places.cert, &places.key, &places.ca, &places.trust];
        all.iter().all(|path| !path.exists()) && !keep::journal(places).exists()
    }
}

fn request(port: u16, original: bool, confirm: Confirm) -> Request {
    Request {
        dispatcher: Target::parse(&format!("127.0.0.1:{port}"), 1).unwrap(),
        hostname: AgentName::parse(NAME).unwrap(),
        lookup_by: None,
        ip: None,
        original,
        confirm,
        patience: None,
    }
}

type Steps = Arc<Mutex<Vec<Progress>>>;

fn start(host: &Host, request: Request) -> (tokio::task::JoinHandle<Result<Paired, PairFailure>>, Steps) {
    let (steps, places) = (Steps::default(), host.places.clone());
    let seen = Arc::clone(&steps);
    let pairing =
        tokio::spawn(
            async move { request_pairing(&request, &places, &move |step| seen.lock().unwrap().push(step)).await },
        );
    (pairing, steps)
}

/// Runs the strong form with an answer that `spoil` has changed; what the agent says to it, and how it fails.
async fn spoiled(spoil: impl FnOnce(&Dispatcher, &CheckedCsr, &mut Approved)) -> (String, PairFailure) {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, _) = start(&host, request(dispatcher.port(), false, Confirm::No));
    let (mut talk, csr) = dispatcher.pending(&dispatcher.ca.certificate().to_pem()).await;
    let mut approved = dispatcher.approved(&csr);
    spoil(&dispatcher, &csr, &mut approved);
    say(&mut talk, &approved.message()).await;
    let AgentMessage::Refused { reason } = hear(&mut talk).await else { panic!("not refused") };
    let failure = pairing.await.unwrap().unwrap_err();
    assert!(host.has_nothing());
    (reason, failure)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_which_anything_was_swapped_stores_nothing() {
    let (reason, failure) = spoiled(|_, csr, answer| answer.cert = signed(&new_ca(), csr)).await;
    assert!(matches!(failure, PairFailure::Unsound(Unsound::Fit(_))), "{failure}");
    assert!(reason.contains("cannot be used"));
    let (_, failure) = spoiled(|d, _, answer| answer.cert = signed(&d.ca, &request_for(NAME))).await;
    assert!(failure.describe().contains("does not match the agent key"), "{}", failure.describe());
    let (_, failure) = spoiled(|_, _, answer| answer.serial = "abcdef".to_owned()).await;
    assert!(matches!(failure, PairFailure::Unsound(Unsound::OtherSerial { .. })), "{failure}");
    for text in ["", "no serial"] {
        let (_, failure) = spoiled(|_, _, answer| answer.serial = text.to_owned()).await;
        assert!(matches!(failure, PairFailure::Unsound(Unsound::Serial(_))), "{failure}");
    }
    let (_, failure) = spoiled(|_, _, answer| answer.id = "../x".to_owned()).await;
    assert!(matches!(failure, PairFailure::Unsound(Unsound::Id(_))), "{failure}");
    let (_, failure) = spoiled(|d, _, answer| answer.cert += &d.ca.certificate().to_pem()).await;
    assert!(matches!(failure, PairFailure::Unsound(Unsound::Certificate(_))), "{failure}");
}

#[test]
fn another_agent_of_the_same_ca_never_poses_as_the_dispatcher() {
    let ca = new_ca();
    let csr = request_for("db.example");
    let agent = ca.sign_agent(&csr, &serial::fresh().unwrap(), 30, now()).unwrap();
    let judged = super::judge::dispatcher(&agent, ca.anchor(), now());
    assert!(matches!(judged, Err(Unsound::NoDispatcher(name)) if name.contains("db.example")));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let ca = new_ca();
    let key = key::generate().unwrap();
    let csr = csr::make(&key, &AgentName::parse("other.example").unwrap()).unwrap();
    let own = ca.sign_dispatcher(&request_for("ctrl-exec-dispatcher"), &serial::fresh().unwrap(), 30, now()).unwrap();
    let answer = super::judge::Answer {
        cert: &signed(&ca, &checked(&csr)),
        ca: ca.anchor(),
        shown: &own,
        dispatcher_serial: own.serial().as_str(),
        dispatcher_id: "hq",
    };
    let judged = super::judge::judge(&answer, key.public(), &AgentName::parse(NAME).unwrap(), now());
    assert!(matches!(judged, Err(Unsound::Name { .. })));
    let judged = super::judge::judge(&answer, key.public(), &AgentName::parse("other.example").unwrap(), now());
    assert_eq!(judged.unwrap().trusted().unwrap().0, *own.serial());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_did_not_sign_what_the_dispatcher_shows_is_refused_before_a_code_is_shown() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, steps) = start(&host, request(dispatcher.port(), false, Confirm::No));
    let mut talk = dispatcher.accept(true).await;
    hear(&mut talk).await;
    let ca = new_ca().certificate().to_pem();
    say(&mut talk, &DispatcherMessage::Challenge { nonce: "11".repeat(32), ca }).await;
    let failure = pairing.await.unwrap().unwrap_err();
    assert!(matches!(failure, PairFailure::Unsound(Unsound::Dispatcher(_))), "{failure}");
    assert!(!steps.lock().unwrap().iter().any(|step| matches!(step, Progress::Code(..))));
    assert!(host.has_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dispatcher_that_vanishes_after_the_certificate_leaves_a_paired_host_that_says_so() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, _) = start(&host, request(dispatcher.port(), false, Confirm::No));
    let (mut talk, csr) = dispatcher.pending(&dispatcher.ca.certificate().to_pem()).await;
    say(&mut talk, &dispatcher.approved(&csr).message()).await;
    assert_eq!(hear(&mut talk).await, AgentMessage::Stored);
    drop(talk);
    let paired = pairing.await.unwrap().unwrap();
    assert!(!paired.registered);
    assert!(host.places.cert.exists() && host.places.key.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_who_does_not_answer_ends_the_wait_and_the_dispatcher_may_deny_meanwhile() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let silent = Confirm::Code(Arc::new(|_: &str| {
        std::thread::park_timeout(Duration::from_mins(1));
        true
    }));
    let (pairing, _) = start(&host, request(dispatcher.port(), false, silent.clone()));
    let (mut talk, csr) = dispatcher.pending(&dispatcher.ca.certificate().to_pem()).await;
    say(&mut talk, &dispatcher.approved(&csr).message()).await;
    say(&mut talk, &DispatcherMessage::Denied { reason: "pairing mode ended\u{1b}[2J".to_owned() }).await;
    let failure = pairing.await.unwrap().unwrap_err();
    assert!(matches!(&failure, PairFailure::Denied(why) if why == "pairing mode ended?[2J"), "{failure}");
    let hasty = Request { patience: Some(Duration::from_millis(50)), ..request(dispatcher.port(), false, silent) };
    let (pairing, _) = start(&host, hasty);
    let (_talk, _) = dispatcher.pending(&dispatcher.ca.certificate().to_pem()).await;
    assert!(matches!(pairing.await.unwrap(), Err(PairFailure::TimedOut(_))));
    assert!(host.has_nothing());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_our_own_gets_the_strong_form_also_where_the_original_would_do() {
    let (dispatcher, host) = (Dispatcher::new().await, Host::new());
    let (pairing, steps) = start(&host, request(dispatcher.port(), true, Confirm::No));
    let (mut talk, csr) = dispatcher.pending(&dispatcher.ca.certificate().to_pem()).await;
    assert_eq!(csr.public_key().kind(), KeyKind::EcdsaP256);
    say(&mut talk, &dispatcher.approved(&csr).message()).await;
    assert_eq!(hear(&mut talk).await, AgentMessage::Stored);
    say(&mut talk, &DispatcherMessage::Registered).await;
    assert!(pairing.await.unwrap().unwrap().registered);
    assert!(steps.lock().unwrap().iter().any(|step| matches!(step, Progress::Code(code, false) if code.len() == 8)));
}
