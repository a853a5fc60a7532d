//! Durations, sorted and counted.

use std::time::{Duration, Instant};

/// How long something took.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// The time below which this share of them lies, in milliseconds.
pub(crate) fn quantile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a short list"
    )]
    let place = ((sorted.len() - 1) as f64 * share).round() as usize;
    millis(*sorted.get(place).unwrap())
}

pub(crate) fn median(times: &[Duration]) -> f64 {
    quantile(times, 0.5)
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// How many of something happened in a second.
pub(crate) fn rate(count: u64, time: Duration) -> f64 {
    float(count) / time.as_secs_f64()
}

/// As a number with a point. Nothing counted here comes near 2^53.
#[expect(clippy::cast_precision_loss, reason = "nothing counted here comes near 2^53")]
pub(crate) const fn float(count: u64) -> f64 {
    count as f64
}
