//! The running agent: the snapshot in force, the counters, the way to the executor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::{Notify, watch};

use super::digests::Digests;
use super::kept::{Kept, Party};
use super::metrics::{Metrics, Turned};
use super::orders::{ExecutorError, Orders};
use super::snapshot::{self, Places, Snapshot, SnapshotError};
use super::strangers::Strangers;
use super::under_way::{Place, UnderWay};
use super::unread::{self, Unread};
use super::unrecorded::Unrecorded;
use super::{own_certificate, pairing, promote};
use crate::audit::{Event, Level, Logger};
use crate::conf::RateLimit;
use crate::conf::agent::Settings;
use crate::net::crowd::Crowd;
use crate::net::handshakes::Handshakes;
use crate::net::local::LocalError;
use crate::net::rate::{Budget, Judgement, Limiter, Verdict};
use crate::net::slots::Slots;
use crate::sys::{clock, descriptors};
use crate::wire::causes;
use crate::wire::name::DispatcherId;

/// Handshakes under way at once, in all and from one address. A handshake costs memory and CPU before anything is
/// known of the peer; but a dispatcher may well open a hundred connections at once.
const HANDSHAKES: (usize, usize) = (512, 256);
/// Connections, in all: at most so many, and no more than half of the descriptors, since scripts need some too. See
/// [`Shares`].
const CONNECTIONS: usize = 4096;

/// Requests whose bodies are waited for, in all and of one dispatcher: more than one has at once that means well, since
/// what it says together may arrive in pieces. The oldest gives way.
const BODIES: (usize, usize) = (4096, 1024);
/// Bytes of such bodies, likewise.
const BODY_BYTES: (usize, usize) = (256 << 20, 64 << 20);
/// Streamed answers that nothing is left to do for but to be read, in all and of one dispatcher. That of which longest
/// nothing was taken gives way.
const READERS: (usize, usize) = (1024, 256);

/// Addresses of dispatchers that are remembered, and for how many seconds after the last request.
const KNOWN: usize = 1024;
const REMEMBERED: u64 = 600;

/// What every connection shares.
#[derive(Debug)]
pub struct Agent {
    places: Places,
    log: Logger,
    orders: Orders,
    snapshot: RwLock<Arc<Snapshot>>,
    runs: PathBuf,
    /// Held from reading files to putting what they say in force, so that nothing older comes after it.
    reading: tokio::sync::Mutex<()>,
    limiter: Mutex<Limiter>,
    /// Addresses that may not connect.
    strangers: Mutex<Strangers>,
    /// Addresses of trusted dispatchers, and when each was heard last.
    known: Mutex<HashMap<IpAddr, u64>>,
    /// A place in it is held until a handshake is over.
    pub handshakes: Arc<Handshakes>,
    /// Held until a connection ends.
    pub connections: Arc<Slots>,
    /// Held while nothing is under way on a connection whose handshake is over.
    pub idle: Arc<Crowd<Party>>,
    /// Held while a request's body is waited for.
    pub bodies: Arc<Crowd<DispatcherId>>,
    /// Held while a streamed answer is waited for to be read.
    pub readers: Arc<Crowd<DispatcherId>>,
    /// Held while a whole answer is waited for to be read.
    pub unread: Arc<Unread>,
    /// Told when there may be jobs to forget.
    pub tidy: Notify,
    /// Jobs whose end could not be put on record.
    pub unrecorded: Unrecorded,
    /// What `GET /capabilities` knows of the scripts' files.
    pub digests: Digests,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether those who are connected are to go, and nobody is to come.
    pub leaving: watch::Sender<bool>,
    under_way: Arc<UnderWay>,
    started: Instant,
    started_at: u64,
}

/// A reload that did not happen; the old snapshot stays in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The front-end's files.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The executor's reading of them.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The place for metrics.
    #[error("metrics")]
    Metrics(#[source] LocalError),
}

/// How many there may be in all, and of one address or party.
#[derive(Debug, PartialEq, Eq)]
struct Shares {
    connections: (usize, usize),
    handshakes: (usize, usize),
    /// Of connections with nothing under way.
    idle: (usize, usize),
}

impl Shares {
    /// With so many descriptors.
    ///
    /// **Invariant:** who has as many idle ones, handshakes, requests and readers as one party may, leaves a newcomer from
    /// his own address a place.
    fn of(descriptors: u64) -> Self {
        let most = usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(64, CONNECTIONS);
        let most_of = |parts: usize| most / 8 * parts;
        Self {
            connections: (most, most_of(6)),
            handshakes: (HANDSHAKES.0.min(most_of(1)), HANDSHAKES.1.min(most_of(1) / 2)),
            idle: (most_of(6), most_of(2)),
        }
    }
}

impl Agent {
    /// An agent with its first snapshot.
    #[must_use]
    pub fn new(places: Places, log: Logger, orders: Orders, snapshot: Snapshot) -> Arc<Self> {
        let limiter = Mutex::new(limiter(&snapshot));
        let shares = Shares::of(descriptors::allowed().unwrap_or(u64::MAX));
        let metrics = Arc::new(Metrics::default());
        metrics.expect(&snapshot.allowlist);
        Arc::new(Self {
            places,
            log,
            orders,
            runs: snapshot.settings.async_runs_dir.to_path_buf(),
            snapshot: RwLock::new(Arc::new(snapshot)),
            reading: tokio::sync::Mutex::default(),
            limiter,
            strangers: Mutex::default(),
            known: Mutex::default(),
            handshakes: Handshakes::new(shares.handshakes.0, shares.handshakes.1),
            connections: Slots::new(shares.connections.0, shares.connections.1),
            idle: Crowd::new(shares.idle.0, shares.idle.1),
            bodies: Crowd::bounded(BODIES, BODY_BYTES),
            readers: Crowd::new(READERS.0, READERS.1),
            unread: unread::room(),
            tidy: Notify::new(),
            unrecorded: Unrecorded::default(),
            digests: Digests::default(),
            metrics,
            leaving: watch::Sender::new(false),
            under_way: Arc::default(),
            started: Instant::now(),
            started_at: clock::unix_now(),
        })
    }

    /// The snapshot in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Its files.
    #[must_use]
    pub const fn places(&self) -> &Places {
        &self.places
    }

    /// The log.
    #[must_use]
    pub const fn log(&self) -> &Logger {
        &self.log
    }

    /// The way to the executor.
    #[must_use]
    pub const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Where its jobs are. **Invariant:** for as long as it runs, or those under way would be nobody's, and could be
    /// started a second time.
    #[must_use]
    pub fn runs(&self) -> &Path {
        &self.runs
    }

    /// When it started, in seconds since 1970.
    #[must_use]
    pub const fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Addresses that are blocked.
    #[must_use]
    pub fn blocked(&self) -> usize {
        self.limiter().blocked(self.seconds())
    }

    /// Takes a place among the requests under way, if `max_children` leaves one; else says how many there are. The
    /// place is free again when it is dropped.
    ///
    /// **Invariant:** nobody takes one before all of his request is there, or keeps one that has nothing left to be done
    /// for it: who says nothing, or reads nothing, would keep others out.
    pub fn begin(&self, kept: Option<&Arc<Kept>>) -> Result<Place, usize> {
        let place = self.under_way.begin(self.snapshot().settings.max_children)?;
        Ok(match kept {
            Some(kept) => place.on(kept.busy()),
            None => place,
        })
    }

    /// The requests under way.
    #[must_use]
    pub fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Replaces the snapshot by what the files say now, and forgets rate blocks; or changes nothing.
    ///
    /// The executor is asked first: if it accepts what we have just found to be right, both switch. If it finds it broken,
    /// neither does. One that cannot be asked has not found anything broken, and must not keep revoked certificates in
    /// force: the front-end switches, and the executor is told before its next order.
    /// Before that `prepare` opens what else the new settings need; what it has opened is returned, or dropped.
    pub async fn reload<P>(&self, prepare: impl FnOnce(&Settings) -> Result<P, LocalError>) -> Result<P, ReloadError> {
        let _turn = self.reading.lock().await;
        self.promote().await;
        let host = self.snapshot().host.clone();
        let (fresh, warnings) = Snapshot::load(&self.places, &host, &self.log)?;
        let prepared = prepare(&fresh.settings).map_err(ReloadError::Metrics)?;
        match self.orders.reload().await {
            Ok(()) => {}
            Err(error @ ExecutorError::Configuration(_)) => return Err(error.into()),
            Err(error) => {
                self.orders.leave_behind();
                let event = Event::new(Level::Warning, "executor-unreachable");
                self.log.emit(event.field("REASON", causes::on_one_line(&error)));
            }
        }
        snapshot::log_warnings(&self.log, &warnings);
        own_certificate::warn(&self.log, &fresh.settings, fresh.fault.as_deref());
        self.warn_of_restart(&fresh);
        *self.limiter() = limiter(&fresh);
        self.metrics.expect(&fresh.allowlist);
        self.put(fresh);
        Ok(prepared)
    }

    /// Takes the trust map up as its file has it now, and leaves everything else as it is.
    pub async fn trust_again(&self) -> Result<(), SnapshotError> {
        let _turn = self.reading.lock().await;
        let present = self.snapshot();
        let trust = snapshot::trust(&present.settings, &self.log)?;
        self.put(Snapshot { trust, ..Snapshot::clone(&present) });
        Ok(())
    }

    fn put(&self, fresh: Snapshot) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
    }

    /// A renewed certificate that waits is put in place, where this process may.
    async fn promote(&self) {
        let (places, log) = (self.places.clone(), self.log.clone());
        let work = move || {
            let (files, doubt) = pairing::places::Places::load(&places.config, &places.root);
            // A configuration that cannot be used is the reload's to report.
            if doubt.is_none() {
                promote::take_up(&files, || log);
            }
        };
        // It fails only where the runtime is going down.
        drop(tokio::task::spawn_blocking(work).await);
    }

    /// What a process settles at its start, a reload cannot change; the operator should not have to find out.
    fn warn_of_restart(&self, fresh: &Snapshot) {
        let (old, new) = (&self.snapshot().settings, &fresh.settings);
        let socket = |settings: &Settings| settings.executor_socket.as_ref().map(|path| path.to_path_buf());
        let changed = [
            ("async_runs_dir", self.runs != *new.async_runs_dir),
            ("port", *old.port != *new.port),
            ("bind", *old.bind != *new.bind),
            ("user", *old.user != *new.user),
            ("executor_socket", socket(old) != socket(new)),
        ];
        for (key, _) in changed.iter().filter(|(_, changed)| *changed) {
            let event = Event::new(Level::Warning, "config-warn").field("KEY", key);
            self.log.emit(event.field("MSG", "takes effect at the next restart"));
        }
    }

    /// Takes note of one whose address is not allowed.
    pub fn estranged(&self, peer: IpAddr) {
        let due = self.strangers.lock().unwrap_or_else(PoisonError::into_inner).due(peer, self.seconds());
        if let Some(untold) = due {
            let event = Event::new(Level::Warning, "ip-block").field("PEER", peer);
            self.log.emit(event.maybe("MORE", Some(untold).filter(|untold| *untold > 0)));
        }
        self.metrics.turned_away(Turned::IpBlock);
    }

    /// Judges a new connection by how often its address comes.
    #[must_use]
    pub fn rate(&self, peer: IpAddr) -> Verdict {
        let judgement = self.limiter().judge(peer, self.seconds());
        self.report(peer, judgement);
        judgement.verdict
    }

    /// A handshake failed.
    pub fn failed(&self, peer: IpAddr, reason: &str) {
        self.log.emit(Event::new(Level::Warning, "tls-failure").field("PEER", peer).field("REASON", reason));
        self.metrics.turned_away(Turned::TlsFailure);
        self.unproven(peer);
        let judgement = self.limiter().failure(peer, self.seconds());
        self.report(peer, judgement);
    }

    /// A connection, or a request on it, has not proven to be a trusted dispatcher's.
    pub fn unproven(&self, peer: IpAddr) {
        if self.limiter().unproven(peer, self.seconds()) {
            self.evicted();
        }
    }

    /// A request has proven to be a trusted dispatcher's.
    pub fn proven(&self, peer: IpAddr) {
        let now = self.seconds();
        let mut known = self.known();
        if known.len() >= KNOWN && !known.contains_key(&peer) {
            known.retain(|_, seen| *seen + REMEMBERED > now);
        }
        if known.len() < KNOWN {
            known.insert(peer, now);
        }
    }

    /// Whether a trusted dispatcher was heard from this address lately. It decides about room alone, never about trust.
    #[must_use]
    pub fn is_known(&self, peer: IpAddr) -> bool {
        self.known().get(&peer).is_some_and(|seen| seen + REMEMBERED > self.seconds())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, peer: IpAddr, judgement: Judgement) {
        if judgement.evicted {
            self.evicted();
        }
        if let Verdict::BlockedNow(reason) = judgement.verdict {
            let event = Event::new(Level::Warning, "rate-block").field("PEER", peer);
            self.log.emit(event.field("REASON", reason.as_str()));
            self.metrics.blocked(reason);
        }
    }

    /// A warning, as the original writes it; one table of its documentation has it as information.
    fn evicted(&self) {
        let event = Event::new(Level::Warning, "rate-evict");
        self.log.emit(event.field("COUNT", crate::net::rate::CAPACITY));
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

fn limiter(snapshot: &Snapshot) -> Limiter {
    let off = Budget { limit: 0, window: 0, block: 0 };
    let budget = |limit: Option<RateLimit>| limit.map_or(off, budget_of);
    Limiter::new(budget(snapshot.settings.rate_limit_volume), budget(snapshot.settings.rate_limit_probe))
}

fn budget_of(limit: RateLimit) -> Budget {
    Budget { limit: NonZeroU32::get(limit.limit), window: limit.window.as_secs(), block: limit.block.as_secs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_half_of_the_descriptors_to_scripts() {
        let usual = Shares { connections: (4096, 3072), handshakes: (512, 256), idle: (3072, 1024) };
        assert_eq!(Shares::of(16_384), usual);
        let few = Shares { connections: (512, 384), handshakes: (64, 32), idle: (384, 128) };
        assert_eq!(Shares::of(1024), few);
        assert!(Shares::of(0).handshakes.1 > 0);
    }
}
