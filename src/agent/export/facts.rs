//! What is no count but a state, looked up when somebody asks: at most once in a second, whoever asks, and less often where
//! that takes its time, as with very many jobs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::agent::jobs;
use crate::agent::state::Agent;
use crate::pki::cert;
use crate::store::jobs::Census;
use crate::sys::clock;
use crate::sys::usage::Usage;

/// How long an answer holds: so many times as long as it took, but not shorter and not longer than these.
const REST: u32 = 20;
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// One moment of an agent.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Handshakes under way.
    pub(super) handshakes: usize,
    /// Connections, those whose handshake is under way included.
    pub(super) connections: usize,
    /// Requests under way.
    pub(super) requests: usize,
    /// Addresses that are blocked.
    pub(super) blocked: usize,
    /// Seconds until the certificate's end; negative behind it.
    pub(super) certificate: Option<i64>,
    /// Whether the executor is there.
    pub(super) executor: bool,
    /// Jobs; none where their directory cannot be read.
    pub(super) jobs: Option<Census>,
    /// Serials in the trust map.
    pub(super) trusted: usize,
    /// Serials in the revocation list.
    pub(super) revoked: usize,
    /// Lines that the log has not taken yet.
    pub(super) unlogged: usize,
    /// Lines that it never got.
    pub(super) lost: u64,
    /// What the process uses.
    pub(super) usage: Usage,
}

/// The last ones looked up, and until when they hold.
#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<(Instant, Facts)>>);

impl Last {
    /// The facts of now, or of a moment ago. One looks, the others wait for it.
    pub(super) async fn facts(&self, agent: &Arc<Agent>) -> Facts {
        let mut last = self.0.lock().await;
        match &*last {
            Some((until, facts)) if Instant::now() < *until => facts.clone(),
            _ => {
                let begun = Instant::now();
                let facts = look(agent).await;
                let rest = (begun.elapsed() * REST).clamp(SHORTEST, LONGEST);
                last.insert((Instant::now() + rest, facts)).1.clone()
            }
        }
    }
}

async fn look(agent: &Arc<Agent>) -> Facts {
    let snapshot = agent.snapshot();
    let store = jobs::store(agent, &snapshot);
    let (jobs, executor) = tokio::join!(jobs::work(&store, |jobs| jobs.census(clock::now())), agent.orders().answers());
    // It fails only where the runtime is going down.
    let usage = tokio::task::spawn_blocking(Usage::now).await.unwrap_or_default();
    let now = i64::try_from(clock::unix_now()).unwrap_or(i64::MAX);
    Facts {
        handshakes: agent.handshakes.held(),
        connections: agent.connections.held(),
        requests: agent.under_way().count(),
        blocked: agent.blocked(),
        certificate: cert::parse_openssl_time(&snapshot.expiry).map(|end| end.unix_timestamp().saturating_sub(now)),
        executor,
        jobs: jobs.ok(),
        trusted: snapshot.trust.iter().count(),
        revoked: snapshot.revoked.len(),
        unlogged: agent.log().waiting(),
        lost: agent.log().lost(),
        usage,
    }
}
