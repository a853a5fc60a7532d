//! Requests under way: how many there are, and when those of a certain moment have ended.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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
    next: u64,
}

/// A place among them, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    all: Arc<UnderWay>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.requests().numbers.remove(&self.number);
        self.all.ended.notify_one();
    }
}

impl UnderWay {
    /// Takes a place if fewer than `most` are taken; else says how many are.
    ///
    /// # Errors
    /// How many there are.
    pub fn begin(self: &Arc<Self>, most: usize) -> Result<Place, usize> {
        let mut requests = self.requests();
        let others = requests.numbers.len();
        if others >= most {
            return Err(others);
        }
        let number = requests.next;
        requests.next += 1;
        requests.numbers.insert(number);
        drop(requests);
        Ok(Place { all: Arc::clone(self), number })
    }

    /// How many there are.
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
        timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
        assert_eq!(all.count(), 1);
    }
}
