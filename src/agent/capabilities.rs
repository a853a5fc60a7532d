//! `GET /capabilities`.

use std::sync::Arc;

use hyper::StatusCode;

use super::answer::{self, Answer};
use super::gate::{Ask, Consent, Denial, Findings, Gate, Passed, Stopped};
use super::metrics::Verb;
use super::snapshot::Snapshot;
use super::state::Agent;
use crate::audit::{Event, Level};
use crate::conf::scripts::Entry;
use crate::hook::Context;
use crate::sys::file;
use crate::wire::capabilities::{Capabilities, ScriptEntry};
use crate::wire::control::Contents;

/// The question. It has no body.
#[derive(Debug)]
pub struct Discovery;

impl Ask for Discovery {
    const VERB: Verb = Verb::Capabilities;
    type Found = Consent;

    fn context(&self) -> Option<Context> {
        Some(Context { action: Self::VERB.action().to_owned(), ..Context::default() })
    }

    fn found(findings: Findings) -> Result<Consent, Gate> {
        findings.consent()
    }

    fn stopped(agent: &Arc<Agent>, stopped: Stopped<Self>) -> Answer {
        let (peer, refused) = (&stopped.asked.peer, &stopped.refused);
        let reason = refused.denial().map_or(refused.code(), Denial::reason);
        let event = Event::new(Level::Warning, "capabilities-deny").field("DISPATCHER", peer.id());
        let event = event.maybe("TRACE", peer.trace());
        agent.log().emit(event.field("PEER", peer.address()).field("REASON", reason));
        answer::error(StatusCode::FORBIDDEN, "not authorised")
    }
}

/// Answers with what of the allowlist may run, and the tags.
pub async fn capabilities(agent: &Agent, passed: &Passed<Discovery>) -> Answer {
    let (peer, snapshot) = (passed.peer(), passed.snapshot());
    let scripts = scripts(agent, snapshot).await;
    let event = Event::new(Level::Info, "capabilities").field("DISPATCHER", peer.id()).maybe("TRACE", peer.trace());
    agent.log().emit(event.field("PEER", peer.address()).field("SCRIPTS", scripts.len()));
    let reply = Capabilities {
        status: "ok".to_owned(),
        host: snapshot.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        scripts,
        tags: snapshot.settings.tags.clone(),
    };
    answer::json(StatusCode::OK, &reply)
}

/// What may run, as the files are now.
async fn scripts(agent: &Agent, snapshot: &Arc<Snapshot>) -> Vec<ScriptEntry> {
    let (own, taken) = (agent.digests.clone(), Arc::clone(snapshot));
    // It fails only where the runtime is going down.
    let digests = tokio::task::spawn_blocking(move || own.of(&taken.allowlist)).await.unwrap_or_default();
    let lacks = snapshot.allowlist.iter().any(|entry| !digests.contains_key(entry.path()));
    let told = if lacks && agent.orders().applies_profiles() {
        agent.digests.told(agent.orders()).await
    } else {
        Contents::default()
    };
    let snapshot = Arc::clone(snapshot);
    let describe = move || {
        let digest = |entry: &Entry| digests.get(entry.path()).or_else(|| told.0.get(entry.name())).cloned();
        let within = |entry: &&Entry| entry.is_within(snapshot.settings.script_dirs.as_deref());
        let listed = snapshot.allowlist.iter().filter(within);
        listed.map(|entry| describe(entry, &snapshot, digest(entry))).collect()
    };
    // It fails only where the runtime is going down.
    tokio::task::spawn_blocking(describe).await.unwrap_or_default()
}

fn describe(entry: &Entry, snapshot: &Snapshot, sha256: Option<String>) -> ScriptEntry {
    let shown = snapshot.sidecars.get(entry.name()).and_then(|sidecar| sidecar.shown.clone());
    let (schema, schema_version) = shown.unzip();
    ScriptEntry {
        name: entry.name().to_string(),
        path: entry.path().display().to_string(),
        executable: file::is_executable(entry.path()),
        profile: entry.profile().to_string(),
        sha256,
        schema,
        schema_version,
    }
}
