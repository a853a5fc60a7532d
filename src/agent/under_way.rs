//! Requests under way: how many there are, and when those of a certain moment have ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::kept::Busy;

/// All of them.
#[derive(Debug, Default)]
pub struct UnderWay {
    requests: Mutex<Requests>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    /// Numbers of those under way, which are given in the order of their beginning.
    numbers: BTreeSet<u64>,
    /// How many of them have stepped aside.
    aside: usize,
    next: u64,
}

/// A place among them, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    all: Arc<UnderWay>,
    number: u64,
    aside: bool,
    /// Its connection is not idle meanwhile.
    busy: Option<Busy>,
}

impl Place {
    /// The same, on this connection.
    #[must_use]
    pub fn on(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    /// Nothing is done for it any more but to tell its caller: it is still under way, and another may begin.
    pub fn step_aside(&mut self) {
        if !std::mem::replace(&mut self.aside, true) {
            self.all.requests().aside += 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut requests = self.all.requests();
        requests.numbers.remove(&self.number);
        requests.aside -= usize::from(self.aside);
        drop(requests);
        self.all.ended.notify_one();
        drop(self.busy.take());
    }
}

impl UnderWay {
    /// Takes a place if fewer than `most` are taken by others that have not stepped aside; else says how many are.
    ///
    /// # Errors
    /// How many there are.
    pub fn begin(self: &Arc<Self>, most: usize) -> Result<Place, usize> {
        let mut requests = self.requests();
        let others = requests.numbers.len() - requests.aside;
        if others >= most {
            return Err(others);
        }
        let number = requests.next;
        requests.next += 1;
        requests.numbers.insert(number);
        drop(requests);
        Ok(Place { all: Arc::clone(self), number, aside: false, busy: None })
    }

    /// How many there are, those that have stepped aside among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.requests().numbers.len()
    }

    /// A mark behind all that have begun so far.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.requests().next
    }

    /// Waits until all that had begun by a mark have ended.
    ///
    /// **Invariant:** one waits at a time.
    pub async fn ended_by(&self, mark: u64) {
        loop {
            let ended = self.ended.notified();
            if self.requests().numbers.first().is_none_or(|oldest| *oldest >= mark) {
                return;
            }
            ended.await;
        }
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn those_of_a_moment_are_waited_for_and_later_ones_are_not() {
        let all = Arc::new(UnderWay::default());
        let [first, second] = [all.begin(2).unwrap(), all.begin(2).unwrap()];
        assert_eq!(all.begin(2).unwrap_err(), 2);
        let mark = all.mark();
        drop(first);
        let _later = all.begin(2).unwrap();
        let waiting = tokio::spawn({
            let all = Arc::clone(&all);
            async move { all.ended_by(mark).await }
        });
        assert!(timeout(Duration::from_millis(20), all.ended_by(mark)).await.is_err());
        drop(second);
        timeout(Duration::from_mins(1), waiting).await.unwrap().unwrap();
        assert_eq!(all.count(), 1);
    }

    #[test]
    fn one_that_steps_aside_leaves_room_and_is_still_under_way() {
        let all = Arc::new(UnderWay::default());
        let mut first = all.begin(1).unwrap();
        assert_eq!(all.begin(1).unwrap_err(), 1);
        first.step_aside();
        first.step_aside();
        let second = all.begin(1).unwrap();
        assert_eq!((all.count(), all.begin(1).unwrap_err()), (2, 1));
        drop(first);
        assert_eq!((all.count(), all.begin(1).unwrap_err()), (1, 1));
        drop(second);
        assert_eq!(all.count(), 0);
    }
}
