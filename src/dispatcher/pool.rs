//! Connections to agents that are kept: one for each agent, shared by all who ask it something at the same time.
//!
//! Only an agent that speaks HTTP/2 has a kept connection. One of the original takes one request a connection, so there
//! everybody dials.
//!
//! **Invariant:** a kept connection is no statement of trust. Who asks over it judges the pin again, by what the
//! registry says at that moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;

use super::failure::CallError;
use super::pin::Presented;
use super::resolve::Target;
use crate::wire::name::AgentName;

/// The number of agents at whose multiples those without a connection are forgotten.
const SWEEP: usize = 256;

/// The connections of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<HashMap<Key, Arc<Slot>>>>);

type Key = (AgentName, String);

/// A request's body.
pub(super) type Sending = Full<Bytes>;

/// What an agent proved to be in its handshake.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    cn: String,
    key_sha256: String,
}

impl Shown {
    /// A certificate's common name, and the SHA-256 of its key in hex.
    pub(super) const fn new(cn: String, key_sha256: String) -> Self {
        Self { cn, key_sha256 }
    }

    /// For the judgement by the pin.
    pub(super) fn presented(&self) -> Presented<'_> {
        Presented { cn: &self.cn, key_sha256: &self.key_sha256 }
    }
}

/// A connection that many can use.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// Sends requests; the connection lasts as long as one of its copies.
    pub(super) sender: SendRequest<Sending>,
    /// What the agent proved to be.
    pub(super) shown: Shown,
}

/// What dialling brought.
pub(super) enum Dialled<One> {
    /// To be shared.
    Kept(Kept),
    /// For one request.
    One(One),
}

/// What a caller gets.
pub(super) enum Way<One> {
    /// A connection that was there before. It may have ended since.
    Kept(Kept),
    /// One that was made now.
    Fresh(Kept),
    /// One for this request alone.
    One(One),
}

#[derive(Debug, Default)]
struct Slot {
    kept: Mutex<Option<Kept>>,
    /// Held by the one who dials for all.
    turn: tokio::sync::Mutex<()>,
    /// The agent takes one request a connection.
    one_each: AtomicBool,
}

impl Pool {
    /// A connection to `target`: the kept one, or what `dial` brings. Of several that ask at once, one dials; if that
    /// brings nothing to share, the others dial too, all at the same time.
    pub(super) async fn way<One>(
        &self,
        target: &Target,
        dial: impl AsyncFnOnce() -> Result<Dialled<One>, CallError>,
    ) -> Result<Way<One>, CallError> {
        let slot = self.slot(target);
        if let Some(kept) = slot.usable() {
            return Ok(Way::Kept(kept));
        }
        let turn = if slot.one_each.load(Ordering::Relaxed) { None } else { slot.turn.try_lock().ok() };
        if !slot.one_each.load(Ordering::Relaxed) {
            if turn.is_none() {
                drop(slot.turn.lock().await);
            }
            // Whose turn it was may have dialled since the look above, also where there is nobody any more to wait for.
            if let Some(kept) = slot.usable() {
                return Ok(Way::Kept(kept));
            }
        }
        let way = match dial().await? {
            Dialled::Kept(kept) => {
                *slot.kept() = Some(kept.clone());
                Way::Fresh(kept)
            }
            Dialled::One(one) => Way::One(one),
        };
        slot.one_each.store(matches!(way, Way::One(_)), Ordering::Relaxed);
        drop(turn);
        Ok(way)
    }

    fn slot(&self, target: &Target) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.name().clone(), target.label());
        if !slots.contains_key(&key) && slots.len() % SWEEP == SWEEP - 1 {
            slots.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.usable().is_some());
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

impl Slot {
    fn usable(&self) -> Option<Kept> {
        let mut kept = self.kept();
        if kept.as_ref().is_some_and(|kept| kept.sender.is_closed()) {
            *kept = None;
        }
        kept.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
