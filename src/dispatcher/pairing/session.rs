//! One pairing session: the open port, its time limit, and what ends with it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::admission::{self, Admission};
use super::connection;
pub use super::shared::Notice;
use super::shared::Shared;
use crate::audit::{Event, Level};
use crate::dispatcher::site::{Site, SiteError};
use crate::net::handshakes::{Handshakes, Place};
use crate::net::listen::{ListenError, Listener};
use crate::net::rate::Verdict;
use crate::pki::chain::{self, ChainError, Usage};
use crate::store::StoreError;
use crate::sys::file;
use crate::sys::file::LockGuard;
use crate::tls::identity::IdentitySlot;
use crate::tls::{self, PairingPeers};

/// The default port.
pub const PORT: u16 = 7444;
/// Connections that have not got as far as the queue: in all, and of one address. Where there are more, the oldest gives
/// way: an agent is queued within milliseconds, and nobody who keeps silent can keep it out.
const CONNECTIONS: (usize, usize) = (64, 4);
/// How long open connections have to hear that the session is over.
const GOODBYE: Duration = Duration::from_secs(3);

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses to listen on; every one of IPv4 and IPv6 where there is none.
    pub bind: Vec<IpAddr>,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// How long the session lasts.
    pub timeout: Duration,
    /// Whether agents of the original are accepted.
    pub original: bool,
}

/// A session that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Configuration, certificates or the CA.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// `ca` and `ca_dir` are of two CAs.
    #[error(
        "the CA certificate in `ca` is not the one in `ca_dir`: agents would get certificates that nobody accepts. Let both \
         name the same CA"
    )]
    TwoCas,
    /// The dispatcher's certificate would be refused by every agent.
    #[error("agents would refuse this dispatcher's certificate: renew it with 'ctrl-exec setup-ctrl-exec'")]
    OwnCertificate(#[source] ChainError),
    /// The queue.
    #[error("the pairing queue cannot be used")]
    Store(#[from] StoreError),
    /// The port.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its time was over.
    TimedOut,
    /// It was told to.
    Stopped,
}

/// An open session.
pub struct Session {
    shared: Arc<Shared>,
    listener: Listener,
    acceptor: TlsAcceptor,
    places: Arc<Handshakes>,
    started: Instant,
    close: watch::Sender<bool>,
    timeout: Duration,
    // Until the session is dropped, operators' commands know that somebody delivers.
    _served: LockGuard,
}

impl Session {
    /// Opens the port. Everything that a later approval needs is looked at now, so that the operator learns at once what
    /// is missing.
    ///
    /// Called within a runtime, which the listener needs.
    pub fn open(site: &Site, options: &Options) -> Result<(Self, mpsc::UnboundedReceiver<Notice>), SessionError> {
        file::sweep(site.registry.dir());
        file::sweep(&site.settings.pairing_dir());
        let (identity, anchor, ca) = (site.identity()?, site.anchor()?, site.ca()?);
        if ca.certificate().der() != anchor.certificate().der() {
            return Err(SessionError::TwoCas);
        }
        let own = identity.certificate().clone();
        for usage in [Usage::Server, Usage::Client] {
            chain::verify(own.der(), &anchor, usage, OffsetDateTime::now_utc())
                .map_err(SessionError::OwnCertificate)?;
        }
        // Those of the original are let through the handshake even where they are not accepted: they get an answer that
        // says why.
        let tls = tls::pairing_server(IdentitySlot::new(identity), PairingPeers::OwnAndOriginal);
        let acceptor = TlsAcceptor::from(tls.map_err(SiteError::from)?);
        let served = site.queue.serve()?;
        let listener = Listener::bind(&options.bind, options.port)?;
        let (close, closing) = watch::channel(false);
        let (notices, heard) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queue: site.queue.clone(),
            registry: site.registry.clone(),
            log: site.log.clone(),
            ca: ca.certificate().clone(),
            own,
            original: options.original || site.settings.pairing.original,
            max_queue: site.settings.pairing.max_queue,
            closing,
            notices,
            admission: Mutex::new(Admission::new(site.settings.pairing.rate_limit)),
        });
        let places = Handshakes::new(CONNECTIONS.0, CONNECTIONS.1);
        let started = Instant::now();
        let session =
            Self { shared, listener, acceptor, places, started, close, timeout: options.timeout, _served: served };
        session.log_start();
        Ok((session, heard))
    }

    /// The addresses bound, with the real port.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listener.local_addresses()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addresses().first().map_or(0, SocketAddr::port)
    }

    /// Serves until the time is over or `stop` is.
    ///
    /// **Invariant:** when it returns, every connection is closed and each of its requests is out of the queue.
    pub async fn run(self, stop: impl Future<Output = ()>) -> End {
        let mut connections = JoinSet::new();
        let end = self.accept(&mut connections, sleep(self.timeout), stop).await;
        // Nobody listens to this channel any more only when no connection is left.
        let _ = self.close.send(true);
        let farewell = async { while connections.join_next().await.is_some() {} };
        // Tasks that do not end by themselves are dropped, and their requests leave the queue with them.
        let _ = timeout(GOODBYE, farewell).await;
        connections.shutdown().await;
        self.log_end(end);
        end
    }

    async fn accept(&self, connections: &mut JoinSet<()>, limit: Sleep, stop: impl Future<Output = ()>) -> End {
        let trouble = |error: &std::io::Error| {
            self.shared.log.emit(Event::new(Level::Error, "accept-error").field("ERROR", error));
        };
        tokio::pin!(limit, stop);
        loop {
            tokio::select! {
                biased;
                () = &mut limit => return End::TimedOut,
                () = &mut stop => return End::Stopped,
                Some(_) = connections.join_next() => {}
                (stream, peer) = self.listener.accept(trouble) => {
                    if let Some(place) = self.admit(peer.ip()) {
                        connections.spawn(self.serve(stream, peer.ip(), place));
                    }
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: IpAddr, place: Place) -> impl Future<Output = ()> + use<> {
        let (shared, acceptor) = (Arc::clone(&self.shared), self.acceptor.clone());
        async move { connection::serve(&shared, &acceptor, stream, (peer, place)).await }
    }

    fn admit(&self, peer: IpAddr) -> Option<Place> {
        let shared = &self.shared;
        let judgement = shared.admit().connection(peer, self.started.elapsed().as_secs());
        if judgement.evicted {
            shared.log.emit(Event::new(Level::Warning, "rate-evict").field("COUNT", crate::net::rate::CAPACITY));
        }
        match judgement.verdict {
            Verdict::Blocked => return None,
            Verdict::BlockedNow(reason) => {
                let event = Event::new(Level::Warning, "rate-block").field("PEER", peer);
                shared.log.emit(event.field("REASON", reason.as_str()));
                return None;
            }
            Verdict::Allow => {}
        }
        Some(self.places.enter(admission::counted_as(peer), false))
    }

    fn log_start(&self) {
        let event = Event::new(Level::Info, "pairing-mode-start").field("PORT", self.port());
        self.shared.log.emit(event.maybe("FORM", self.shared.original.then_some("original-accepted")));
    }

    fn log_end(&self, end: End) {
        self.shared.log.emit(match end {
            End::TimedOut => Event::new(Level::Info, "pairing-mode-timeout").field("PORT", self.port()),
            End::Stopped => Event::new(Level::Info, "pairing-mode-stop"),
        });
    }
}
