//! What an agent at rest lets go of.
//!
//! Of its resident memory most is the program itself: the kernel maps a page and its neighbours when one is touched, and keeps
//! them mapped. A start needs much that no request does, and a busy hour much that the quiet one after it does not. Nor does an
//! agent take huge pages, of which a few make more than all that it needs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::state::Agent;
use crate::sys::memory;

/// After so long without a request an agent is at rest.
const QUIET: Duration = Duration::from_secs(30);

/// Lets go at once of what the start has touched, and later, whenever there was something to do and there is no more, of
/// what that has. Whatever is needed again costs a fault of a microsecond.
pub async fn rest(agent: Arc<Agent>) -> Infallible {
    memory::allow_huge_pages(false);
    let (mut rested, mut before) = (None, agent.under_way().mark());
    loop {
        let begun = agent.under_way().mark();
        if begun == before && rested != Some(begun) {
            // Where the kernel refuses, they stay, as they would without this.
            drop(memory::forget_unchanged());
            rested = Some(begun);
        }
        before = begun;
        tokio::time::sleep(QUIET).await;
    }
}
