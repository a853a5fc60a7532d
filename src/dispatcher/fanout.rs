//! Many hosts at once, bounded.
//!
//! At most `most` calls are under way; results come back in the order asked, and `done` sees each as it completes.

use std::future::Future;

use tokio::task::JoinSet;

/// Runs `call` on every item, at most `most` (at least one) at a time.
pub async fn map<I, T, F, Fut>(items: Vec<I>, most: usize, call: F, mut done: impl FnMut(&T)) -> Vec<T>
where
    F: Fn(I) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let total = items.len();
    let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(total).collect();
    let mut waiting = items.into_iter().enumerate();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < most.max(1) {
            let Some((place, item)) = waiting.next() else { break };
            let work = call(item);
            tasks.spawn(async move { (place, work.await) });
        }
        // A task that panicked aborts the process in what ships; in a debug build its slot stays empty.
        match tasks.join_next().await {
            None => break,
            Some(Err(_)) => {}
            Some(Ok((place, result))) => {
                done(&result);
                if let Some(slot) = results.get_mut(place) {
                    *slot = Some(result);
                }
            }
        }
    }
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn results_come_in_the_order_asked_whatever_ends_first() {
        let mut completed = Vec::new();
        let call = |n: u64| async move {
            for _ in 0..(20 - n) {
                tokio::task::yield_now().await;
            }
            n
        };
        let results = map((0..20).collect(), 20, call, |n| completed.push(*n)).await;
        assert_eq!(results, (0..20).collect::<Vec<_>>());
        assert_ne!(completed, results);
    }

    #[tokio::test]
    async fn never_more_than_the_limit_are_under_way() {
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let call = |_| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
            }
        };
        map((0..1000).collect::<Vec<u32>>(), 64, call, |()| {}).await;
        assert_eq!(peak.load(Ordering::SeqCst), 64);
    }
}
