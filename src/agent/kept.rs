//! Connections that are kept with nothing under way on them: a bounded number of one dispatcher, and of all who are none.
//! The one on which longest nothing was done ends where another has nothing to do.
//!
//! A request that is not there to its end is nothing under way, nor is a whole answer that only waits to be read: who says
//! or reads nothing has no more connections than one who leaves them idle, and his newest is never the one that ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::net::crowd::{Crowd, Place};
use crate::wire::name::DispatcherId;

/// A dispatcher that was trusted when it connected, or anybody else.
pub type Party = Option<DispatcherId>;

/// One connection.
#[derive(Debug)]
pub struct Kept {
    idle: Arc<Crowd<Party>>,
    party: Party,
    gone: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// While there is nothing under way.
    place: Option<Place<Party>>,
}

/// Something under way on a connection, until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Kept>);

impl Kept {
    /// A connection on which nothing was asked yet.
    #[must_use]
    pub fn new(idle: &Arc<Crowd<Party>>, party: Party) -> Arc<Self> {
        let kept = Self { idle: Arc::clone(idle), party, gone: Arc::default(), state: Mutex::default() };
        kept.state().place = Some(kept.enter());
        Arc::new(kept)
    }

    /// Something is under way from now on.
    #[must_use]
    pub fn busy(self: &Arc<Self>) -> Busy {
        let mut state = self.state();
        state.under_way += 1;
        state.place = None;
        Busy(Arc::clone(self))
    }

    /// Waits until the connection is one idle too many.
    pub async fn one_too_many(&self) {
        loop {
            self.gone.notified().await;
            // Something may have begun at the last moment: then it is not idle any more.
            if self.state().place.as_ref().is_some_and(Place::is_lost) {
                return;
            }
        }
    }

    fn enter(&self) -> Place<Party> {
        self.idle.enter_heard(self.party.clone(), false, Arc::clone(&self.gone))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.place = Some(self.0.enter());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn ends(kept: &Kept) -> bool {
        pin!(kept.one_too_many()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn the_one_that_is_idle_longest_ends_and_never_one_at_work() {
        let idle = Crowd::new(9, 2);
        let [first, second, third] = [(); 3].map(|()| Kept::new(&idle, None));
        assert!(ends(&first) && !ends(&second) && !ends(&third));
        let (work, more) = (second.busy(), second.busy());
        let fourth = Kept::new(&idle, None);
        drop(work);
        let fifth = Kept::new(&idle, None);
        assert!(ends(&third) && ![&second, &fourth, &fifth].into_iter().any(|kept| ends(kept)));
        // Idle again, it is the youngest.
        drop(more);
        assert!(ends(&fourth) && ![&second, &fifth].into_iter().any(|kept| ends(kept)));
        let other = Kept::new(&idle, DispatcherId::parse("other").ok());
        assert!(![&second, &fifth, &other].into_iter().any(|kept| ends(kept)));
    }

    #[test]
    fn what_begins_at_the_last_moment_is_not_broken_off() {
        let idle = Crowd::new(9, 1);
        let [first, _second] = [(); 2].map(|()| Kept::new(&idle, None));
        let _work = first.busy();
        assert!(!ends(&first));
    }
}
