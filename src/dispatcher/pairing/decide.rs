//! The operator's answers: list, approve, deny. They need no session of their own; the answer reaches the agent through
//! the session that queued its request.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::sign::{self, SignError};
use crate::audit::{Event, Level};
use crate::dispatcher::site::{Site, SiteError};
use crate::pki::cert::Certificate;
use crate::pki::csr::{self, CsrError, ExpectedName};
use crate::store::StoreError;
use crate::store::queue::{Answer, Approval, Form, QueuedRequest};
use crate::store::record::{AgentRecord, DEFAULT_PORT, Lookup};
use crate::sys::clock;
use crate::wire::hex;
use crate::wire::name::RequestId;
use crate::wire::pair::{LookupBy, OriginalAnswer};
use crate::wire::stamp;

/// How long [`delivered`] waits between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// An answer that could not be given.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No such request.
    #[error("No pending request '{0}'")]
    Unknown(String),
    /// Somebody was faster.
    #[error("request '{0}' has been answered already")]
    Answered(RequestId),
    /// Nobody is there to hand the answer over.
    #[error("no pairing session is running that could deliver an answer to request '{0}'")]
    NoSession(RequestId),
    /// The request is not one that may be signed.
    #[error("the request of '{agent}' cannot be signed")]
    Csr {
        /// Whose request.
        agent: String,
        /// Why.
        #[source]
        source: CsrError,
    },
    /// The queue or the registry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dispatcher's own certificate.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The CA.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// What the operator decides otherwise than the agent asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// How to find the agent.
    pub lookup_by: Option<LookupBy>,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub agent_port: Option<u16>,
}

/// A request that waits, and whom it would replace.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The request.
    pub request: QueuedRequest,
    /// The record of the same name that an approval replaces.
    pub replaces: Option<AgentRecord>,
}

/// An approval that was given.
#[derive(Clone, Debug)]
pub struct Approved {
    /// Of this request.
    pub request: QueuedRequest,
    /// The record that takes effect when the agent has its certificate.
    pub record: AgentRecord,
    /// The record that it replaces.
    pub replaces: Option<AgentRecord>,
}

/// What became of an approval.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// The agent has its certificate, and this is its record.
    Registered(Box<AgentRecord>),
    /// The agent did not take it: nothing was registered.
    NotTaken,
    /// The agent has not taken it yet; it is registered as soon as it does, while the session lasts.
    Waiting,
}

/// Every request that waits, oldest first. Stale ones are removed.
pub fn list(site: &Site) -> Result<Vec<Waiting>, StoreError> {
    site.queue.remove_stale()?;
    let waiting = |request: QueuedRequest| Waiting { replaces: replaced(site, &request), request };
    Ok(site.queue.list()?.into_iter().map(waiting).collect())
}

/// Signs the certificate of a request and leaves the answer in the queue. `id` is as the operator typed it.
pub fn approve(site: &Site, id: &str, overrides: Overrides) -> Result<Approved, DecideError> {
    let request = find(site, id)?;
    if site.queue.answered(&request.id)?.is_some() {
        return Err(DecideError::Answered(request.id));
    }
    if !site.queue.is_served()? {
        return Err(DecideError::NoSession(request.id));
    }
    let agent = request.hostname.to_string();
    let checked = csr::check(&request.csr, ExpectedName::Exactly(request.hostname.as_str()))
        .map_err(|source| DecideError::Csr { agent, source })?;
    let own = site.certificate()?;
    let certificate = sign::sign_agent(site, &checked, OffsetDateTime::now_utc())?;
    let record = record(&request, overrides, &certificate, (&own, &stamp::utc(clock::unix_now())));
    let answer = answer(site, &request, &certificate, &own)?;
    let replaces = replaced(site, &request);
    let approval = Approval { answer, record: record.clone() };
    if !site.queue.answer(&request.id, &Answer::Approved(Box::new(approval)))? {
        // Between the first look and this one somebody answered, or the agent left.
        let gone = site.queue.get(&request.id)?.is_none();
        return Err(if gone { DecideError::Unknown(id.to_owned()) } else { DecideError::Answered(request.id) });
    }
    log(site, "pair-approve", &request, replaces.is_some());
    Ok(Approved { request, record, replaces })
}

/// Leaves a no in the queue. Without a session to deliver it the request just goes.
pub fn deny(site: &Site, id: &str) -> Result<QueuedRequest, DecideError> {
    let request = find(site, id)?;
    if !site.queue.answer(&request.id, &Answer::Denied("rejected by operator".to_owned()))? {
        return Err(DecideError::Answered(request.id));
    }
    if !site.queue.is_served()? {
        site.queue.remove(&request.id)?;
    }
    log(site, "pair-deny", &request, false);
    Ok(request)
}

/// Waits until the session has delivered an approval, at most for `patience`. A session that is killed delivers nothing
/// any more.
pub fn delivered(site: &Site, approved: &Approved, patience: Duration) -> Result<Delivery, StoreError> {
    let start = Instant::now();
    while site.queue.get(&approved.request.id)?.is_some() && site.queue.is_served()? {
        if start.elapsed() >= patience {
            return Ok(Delivery::Waiting);
        }
        std::thread::sleep(PAUSE);
    }
    // The session registers first and then forgets the request.
    let found = site.registry.get(&approved.record.hostname)?;
    let ours = found.filter(|record| record.reqid == approved.request.id.as_str());
    Ok(ours.map_or(Delivery::NotTaken, |record| Delivery::Registered(Box::new(record))))
}

fn find(site: &Site, id: &str) -> Result<QueuedRequest, DecideError> {
    // What is no id is nobody's id: no text becomes a path unparsed.
    let parsed = RequestId::parse(id).ok();
    let found = parsed.map(|id| site.queue.get(&id)).transpose()?.flatten();
    found.ok_or_else(|| DecideError::Unknown(id.chars().take(80).collect()))
}

/// A record that cannot be read is replaced like any other, but there is nothing to show of it.
pub(super) fn replaced(site: &Site, request: &QueuedRequest) -> Option<AgentRecord> {
    site.registry.get(&request.hostname).unwrap_or(None)
}

fn log(site: &Site, action: &'static str, request: &QueuedRequest, replaced: bool) {
    let event = Event::new(Level::Info, action).field("AGENT", &request.hostname).field("REQID", &request.id);
    let event = event.maybe("FORM", (request.form == Form::Original).then_some("original"));
    site.log.emit(event.maybe("REPLACED", replaced.then_some("yes")));
}

fn answer(
    site: &Site,
    request: &QueuedRequest,
    certificate: &Certificate,
    own: &Certificate,
) -> Result<OriginalAnswer, SiteError> {
    Ok(OriginalAnswer {
        status: "approved".to_owned(),
        cert: Some(certificate.to_pem()),
        ca: Some(site.anchor()?.certificate().to_pem()),
        nonce: Some(request.nonce.clone()),
        dispatcher_serial: Some(own.serial().to_string()),
        dispatcher_id: Some(site.dispatcher_id().to_string()),
        ..OriginalAnswer::default()
    })
}

/// The record to register. What the operator said counts before what the agent asked for.
fn record(
    request: &QueuedRequest,
    overrides: Overrides,
    certificate: &Certificate,
    (own, now): (&Certificate, &str),
) -> AgentRecord {
    let mut extra = Map::new();
    extra.insert("serial_broadcast".to_owned(), Value::from(""));
    extra.insert("serial_confirmed".to_owned(), Value::from(now));
    AgentRecord {
        hostname: request.hostname.clone(),
        ip: overrides.ip.unwrap_or(request.ip).to_string(),
        paired: now.to_owned(),
        expiry: certificate.expiry_text(),
        reqid: request.id.to_string(),
        lookup_by: Lookup(overrides.lookup_by.or(request.lookup_by).unwrap_or(LookupBy::Hostname)),
        port: overrides.agent_port.or(request.port).unwrap_or(DEFAULT_PORT),
        tags: std::collections::BTreeMap::new(),
        dispatcher_serial: own.serial().to_string(),
        serial_status: "current".to_owned(),
        cert_cn: certificate.common_name().map(str::to_owned),
        cert_serial: Some(certificate.serial().to_string()),
        cert_key_sha256: Some(hex::encode(&certificate.public_key().sha256())),
        extra,
    }
}
