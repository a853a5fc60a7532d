//! Connections to monitors that are free: another order can be given on each, without the executor ([`wire::order`]).
//!
//! One whose monitor has waited long enough, or has gone with its executor, is found to be closed when an order is to be
//! given on it, and is dropped then. Those of a configuration that is not in force any more are dropped before the executor
//! is asked for the new one.
//!
//! [`wire::order`]: crate::wire::order

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::unix::pipe::Receiver;

/// Most connections that are kept: as many as an executor has monitors wait.
const MOST: usize = 8;
/// How long an executor that keeps no connections is not asked to.
const OLDER: Duration = Duration::from_mins(1);

/// All of them.
#[derive(Debug, Default)]
pub struct Kept(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last one first, whose monitor's memory is warm.
    free: Vec<Receiver>,
    turn: Turn,
    /// Until when the executor is taken for an older program, which keeps none.
    older: Option<Instant>,
}

/// How often the connections were dropped before one was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn(u64);

impl Kept {
    /// One on which an order can be given, or to which that fails; and how to give it back.
    pub fn take(&self) -> Option<(Receiver, Turn)> {
        let mut state = self.state();
        let turn = state.turn;
        state.free.pop().map(|connection| (connection, turn))
    }

    /// For one that is made now.
    pub fn turn(&self) -> Turn {
        self.state().turn
    }

    /// Its monitor is free.
    pub fn give_back(&self, connection: Receiver, turn: Turn) {
        let mut state = self.state();
        if state.turn == turn && state.free.len() < MOST {
            state.free.push(connection);
        }
    }

    /// Drops those that are free, and later those that are not.
    pub fn renew(&self) {
        let mut state = self.state();
        state.turn.0 += 1;
        state.older = None;
        let dropped = std::mem::take(&mut state.free);
        drop(state);
        drop(dropped);
    }

    /// Whether the executor may be asked to keep a connection.
    pub fn is_possible(&self, now: Instant) -> bool {
        self.state().older.is_none_or(|until| until <= now)
    }

    /// It does not know how to.
    pub fn is_impossible(&self, now: Instant) {
        self.state().older = now.checked_add(OLDER);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fdpass;

    fn connection() -> Receiver {
        let (ours, _) = fdpass::pair(fdpass::Kind::Stream).unwrap();
        crate::sys::pipe::set_nonblocking(&ours, true).unwrap();
        Receiver::from_owned_fd_unchecked(ours).unwrap()
    }

    #[tokio::test]
    async fn so_many_are_kept_and_none_beyond_a_renewal() {
        let kept = Kept::default();
        let turn = kept.turn();
        (0..=MOST).for_each(|_| kept.give_back(connection(), turn));
        assert_eq!(kept.state().free.len(), MOST);
        let (taken, turn) = kept.take().unwrap();
        kept.renew();
        kept.give_back(taken, turn);
        assert!(kept.take().is_none());
        kept.give_back(connection(), kept.turn());
        assert!(kept.take().is_some());
    }

    #[test]
    fn an_executor_that_cannot_is_asked_again_after_a_while_and_after_a_reload() {
        let (kept, now) = (Kept::default(), Instant::now());
        assert!(kept.is_possible(now));
        kept.is_impossible(now);
        assert!(!kept.is_possible(now) && kept.is_possible(now + OLDER));
        kept.renew();
        assert!(kept.is_possible(now));
    }
}
