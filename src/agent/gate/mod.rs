//! The gate: who may ask, and what. One function, `through`, asks; one list, [`Gate::ORDER`], is the order; one table,
//! [`order::row`], says which gates a verb has.
//!
//! Whoever comes passes them in four stages, since a gate can only judge what is there by then, and since nobody should cost
//! more than the gate that refuses him: [`arrives`] before a handshake, [`shows`] after it, [`asks`] with the head of each
//! request, [`calls`] with all of it. Each is a piece of the same order: [`order`] says which, and why. What a stage has found
//! out is what the next one takes, so none can be left out: a verb takes a [`Passed`] of its own request, which `calls` alone
//! makes, of a [`TrustedPeer`], which `asks` alone makes.
//!
//! **Invariant:** everything is judged for each request against the snapshot of that moment, never once for a connection:
//! a serial that was revoked or retired loses an open connection's next request too, and so does an address that is not
//! allowed any more, and a certificate of a CA that is not this agent's any more. A request whose body was long on its way,
//! or whose hook took its time, is judged again if anything has changed meanwhile: nothing begins for one who lost his
//! trust before.

pub mod judge;
pub mod order;
pub mod rules;
mod told;
pub mod verdict;

use std::net::IpAddr;
use std::sync::Arc;

use hyper::StatusCode;
use rustls::ServerConnection;
use rustls::pki_types::UnixTime;
use time::OffsetDateTime;

pub use judge::{Facts, Grounds, Shown, admits, judge, judge_serial};
pub use order::{Gate, Stage};
pub use verdict::{Consent, Denial, Found, Refused, Rejection};

use super::answer::{self, Answer};
use super::metrics::Verb;
use super::snapshot::Snapshot;
use super::state::Agent;
use crate::audit::Logger;
use crate::hook::{Context, Hook, record};
use crate::net::rate;
use crate::sys::clock;
use crate::tls::{Proof, peer};
use crate::wire::name::{DispatcherId, ScriptName};
use crate::wire::ping::Session;
use crate::wire::serial::Serial;
use crate::wire::stamp;
use crate::wire::trace::TraceParent;

/// A peer whose certificate the CA signed. Nothing more is known of it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it connected from.
    pub address: IpAddr,
    /// That it has a certificate, and of which CA.
    pub proof: Arc<Proof>,
    /// Serial of its certificate.
    pub serial: Serial,
    /// How the session of its connection came about.
    pub session: Session,
}

/// A dispatcher that this agent was paired with.
#[derive(Clone, Debug)]
pub struct TrustedPeer {
    peer: Peer,
    id: DispatcherId,
    trace: Option<TraceParent>,
    /// What it is trusted by.
    judged_by: Arc<Snapshot>,
}

impl TrustedPeer {
    /// The same peer, with the trace that its request is part of.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceParent>) -> Self {
        self.trace = trace;
        self
    }

    /// The trace that its request is part of, if it said so.
    #[must_use]
    pub const fn trace(&self) -> Option<&TraceParent> {
        self.trace.as_ref()
    }

    /// How the session of its connection came about.
    #[must_use]
    pub const fn session(&self) -> Session {
        self.peer.session
    }

    /// Where it connected from.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.peer.address
    }

    /// Serial of its certificate.
    #[must_use]
    pub const fn serial(&self) -> &Serial {
        &self.peer.serial
    }

    /// Its stable id: the key of policy, attribution and ownership.
    #[must_use]
    pub const fn id(&self) -> &DispatcherId {
        &self.id
    }
}

/// What a verb is asked with.
pub trait Ask: Sized + Sync {
    /// The verb, and with it the gates.
    const VERB: Verb;
    /// What its gates must have found out.
    type Found;

    /// The script that is to run, and its arguments.
    fn call(&self) -> Option<(String, &[String])> {
        None
    }

    /// What the hook is told of it, beyond who asks.
    fn context(&self) -> Option<Context> {
        None
    }

    /// What the verb needs of what was found out.
    ///
    /// # Errors
    /// The gate that has not found it.
    fn found(findings: Findings) -> Result<Self::Found, Gate>;

    /// The log's line and the answer where a gate has stopped it.
    fn stopped(_agent: &Arc<Agent>, _stopped: Stopped<Self>) -> Answer {
        answer::error(StatusCode::FORBIDDEN, "not authorised")
    }
}

/// A request of which nothing is judged but whose it is.
pub trait OfPeer: Sized + Sync {
    /// The verb.
    const VERB: Verb;
}

impl<A: OfPeer> Ask for A {
    const VERB: Verb = <A as OfPeer>::VERB;
    type Found = ();

    fn found(_: Findings) -> Result<(), Gate> {
        Ok(())
    }
}

/// A trusted peer's request, and what it is judged by.
#[derive(Debug)]
pub struct Asked<A> {
    /// Whose it is.
    pub peer: TrustedPeer,
    /// What was in force.
    pub snapshot: Arc<Snapshot>,
    /// What it says.
    pub ask: A,
}

/// A request that has passed every gate of its verb.
#[derive(Debug)]
pub struct Passed<A: Ask> {
    asked: Asked<A>,
    found: A::Found,
}

impl<A: Ask> Passed<A> {
    /// The request, and what the gates have found out.
    pub fn into_parts(self) -> (Asked<A>, A::Found) {
        (self.asked, self.found)
    }

    /// Whose it is.
    pub const fn peer(&self) -> &TrustedPeer {
        &self.asked.peer
    }

    /// What was in force.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.asked.snapshot
    }

    /// What it says.
    pub const fn ask(&self) -> &A {
        &self.asked.ask
    }
}

/// A request that a gate has stopped.
#[derive(Debug)]
pub struct Stopped<A> {
    /// The request.
    pub asked: Asked<A>,
    /// The gate's word.
    pub refused: Refused,
}

impl<A> Stopped<A> {
    /// The answer to one who is not trusted any more; none where it is the request that was stopped.
    pub fn distrusted(&self, path: &str, log: &Logger) -> Option<Answer> {
        let of_peer = matches!(self.refused, Refused::Address | Refused::Handshake(_) | Refused::Serial(_));
        of_peer.then(|| self.refused.answer(&self.asked.peer.peer, path, log))
    }
}

/// What gates have found out.
#[derive(Debug, Default)]
pub struct Findings {
    proof: Option<Proof>,
    id: Option<DispatcherId>,
    permitted: Option<ScriptName>,
    consent: Option<Consent>,
}

impl Findings {
    /// The script that may run with these arguments.
    ///
    /// # Errors
    /// The gate that should have found it.
    pub fn script(self) -> Result<ScriptName, Gate> {
        self.permitted.ok_or(Gate::Contract)
    }

    /// The hook's consent.
    ///
    /// # Errors
    /// The hook, if it was not asked.
    pub fn consent(&self) -> Result<Consent, Gate> {
        self.consent.ok_or(Gate::Hook)
    }
}

/// A connection that was just accepted, before anything is done for it.
///
/// # Errors
/// Address or rate; the connection is to be closed.
pub async fn arrives(agent: &Agent, address: IpAddr) -> Result<(), Refused> {
    let snapshot = agent.snapshot();
    let facts = Facts { address: Some(address), ..Facts::default() };
    through(Stage::Arrival, None, Way::new(agent, &snapshot, facts)).await.map(drop)
}

/// A connection whose handshake is over: the peer, and the end of its certificate. It is judged by what is in force now,
/// which may be newer than what the handshake began with, or the session.
///
/// # Errors
/// What is wrong with the certificate; the connection is to be closed.
pub async fn shows(
    agent: &Agent,
    address: IpAddr,
    end: &ServerConnection,
    now: UnixTime,
) -> Result<(Peer, OffsetDateTime), Refused> {
    let snapshot = agent.snapshot();
    let facts = Facts { address: Some(address), shown: Some((Shown::Now(end), now)), ..Facts::default() };
    let findings = through(Stage::Handshake, None, Way::new(agent, &snapshot, facts)).await?;
    let proof = Arc::new(findings.proof.ok_or(Refused::Unjudged(Gate::Handshake))?);
    let certificate = peer::certificate(end).map_err(|error| Refused::Handshake(error.to_string()))?;
    let (serial, session) = (certificate.serial().clone(), peer::session(end));
    Ok((Peer { address, proof, serial, session }, certificate.not_after()))
}

/// A request of which nothing but the verb is known; `verb` is none where nothing was asked yet.
///
/// # Errors
/// The gate that does not let the peer in; nothing of the request is to be used.
pub async fn asks(agent: &Agent, peer: &Peer, verb: Option<Verb>, now: UnixTime) -> Result<TrustedPeer, Refused> {
    let snapshot = agent.snapshot();
    let facts = Facts {
        address: Some(peer.address),
        shown: Some((Shown::Before(&peer.proof), now)),
        serial: Some(&peer.serial),
        ..Facts::default()
    };
    let findings = through(Stage::Request, verb, Way::new(agent, &snapshot, facts)).await?;
    let id = findings.id.ok_or(Refused::Unjudged(Gate::Trust))?;
    Ok(TrustedPeer { peer: peer.clone(), id, trace: None, judged_by: snapshot })
}

/// The same peer by what is in force now, where that has changed.
async fn still(agent: &Agent, peer: &TrustedPeer, verb: Verb) -> Result<Option<TrustedPeer>, Refused> {
    if Arc::ptr_eq(&peer.judged_by, &agent.snapshot()) {
        return Ok(None);
    }
    let anew = asks(agent, &peer.peer, Some(verb), UnixTime::now()).await?;
    Ok(Some(anew.traced(peer.trace.clone())))
}

/// All of a trusted peer's request.
///
/// # Errors
/// The gate that stops it; the verb is not to be reached.
pub async fn calls<A: Ask>(agent: &Agent, peer: TrustedPeer, ask: A) -> Result<Passed<A>, Box<Stopped<A>>> {
    let (peer, trusted) = match still(agent, &peer, A::VERB).await {
        Ok(anew) => (anew.unwrap_or(peer), Ok(())),
        Err(refused) => (peer, Err(refused)),
    };
    // One request is judged by one snapshot.
    let asked = Asked { snapshot: Arc::clone(&peer.judged_by), peer, ask };
    let found = match trusted {
        Ok(()) => found(agent, &asked).await,
        Err(refused) => Err(refused),
    };
    match found {
        Ok(found) => Ok(Passed { asked, found }),
        Err(refused) => Err(Box::new(Stopped { asked, refused })),
    }
}

async fn found<A: Ask>(agent: &Agent, asked: &Asked<A>) -> Result<A::Found, Refused> {
    let call = asked.ask.call();
    let call = call.as_ref().map(|(script, args)| (script.as_str(), *args));
    let context = || asked.ask.context();
    let way = Way::new(agent, &asked.snapshot, Facts { call, ..Facts::default() });
    let way = Way { told: Some((&asked.peer, &context)), ..way };
    let found = A::found(through(Stage::Call, Some(A::VERB), way).await?).map_err(Refused::Unjudged)?;
    // A hook may take its time, and what it was told of the peer must still be so.
    match still(agent, &asked.peer, A::VERB).await? {
        Some(other) if other.id != asked.peer.id => Err(Refused::Serial(Rejection::Unknown)),
        _ => Ok(found),
    }
}

/// Someone on the way through the gates.
struct Way<'a> {
    agent: &'a Agent,
    hook: Option<&'a Hook>,
    grounds: Grounds<'a>,
    facts: Facts<'a>,
    /// What the hook is told.
    told: Option<(&'a TrustedPeer, &'a (dyn Fn() -> Option<Context> + Sync))>,
    findings: Findings,
}

/// Asks the gates of one stage, in their order, until one refuses.
///
/// **Invariant:** nobody else asks. A gate that cannot judge refuses.
async fn through(stage: Stage, verb: Option<Verb>, mut way: Way<'_>) -> Result<Findings, Refused> {
    for gate in order::at(stage, verb) {
        let judged = match gate {
            Gate::Rate => way.rate(),
            Gate::Hook => way.hook().await,
            _ => judge(gate, &way.grounds, &way.facts),
        };
        way.note(judged.unwrap_or(Err(Refused::Unjudged(gate)))?);
    }
    Ok(way.findings)
}

impl<'a> Way<'a> {
    fn new(agent: &'a Agent, snapshot: &'a Snapshot, facts: Facts<'a>) -> Self {
        let (hook, grounds) = (snapshot.hook.as_ref(), Grounds::of(snapshot));
        Self { agent, hook, grounds, facts, told: None, findings: Findings::default() }
    }

    fn note(&mut self, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Certified(proof) => self.findings.proof = Some(proof),
            Found::Dispatcher(id) => self.findings.id = Some(id),
            Found::Listed(script) => self.facts.listed = Some(script),
            Found::Held => self.findings.permitted = self.facts.listed.take(),
            Found::Consent(consent) => self.findings.consent = Some(consent),
        }
    }

    fn rate(&self) -> Option<Result<Found, Refused>> {
        Some(match self.agent.rate(self.facts.address?) {
            rate::Verdict::Allow => Ok(Found::Nothing),
            blocked => Err(Refused::Rate(blocked)),
        })
    }

    /// Asks the hook, and logs what it says.
    async fn hook(&self) -> Option<Result<Found, Refused>> {
        let Some(hook) = self.hook else { return Some(Ok(Found::Consent(Consent::NoHook))) };
        let (peer, context) = self.told?;
        let context = Context {
            source_ip: peer.address().to_string(),
            dispatcher: peer.id().to_string(),
            dispatcher_serial: peer.serial().to_string(),
            traceparent: peer.trace().cloned(),
            timestamp: stamp::utc(clock::unix_now()),
            ..context()?
        };
        let decision = Box::pin(hook.ask(&context)).await;
        record::decision(self.agent.log(), hook, &context, &decision);
        Some(verdict::of(decision).map(Found::Consent).map_err(Refused::Hook))
    }
}

#[cfg(test)]
pub(super) mod tests;
