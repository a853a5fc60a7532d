//! When to ask a script to end, when to kill it, and what to call it then. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::wire::outcome::Outcome;

/// First pause between two attempts to kill what is left of a tree; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Attempts after which those that are left deserve a line in the log: about ten seconds.
const LINGERING: u32 = 17;

/// What is to be done to the script's tree now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing yet.
    Wait,
    /// Ask everyone to end.
    Terminate,
    /// Kill everyone.
    Kill,
    /// Kill everyone, and tell that it has not helped for a while.
    KillAndTell,
}

/// A job has printed more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    /// Bytes that it may print.
    pub(super) limit: u64,
    /// It has printed so much more that it is not to be given time any more.
    pub(super) far: bool,
}

/// A running script, as far as its end is concerned.
#[derive(Debug)]
pub(super) struct Watch {
    phase: Phase,
    kill_grace: Duration,
}

#[derive(Debug)]
enum Phase {
    /// Nobody wants it to end.
    Running { limit: Option<Limit> },
    /// It was asked to end, and is killed at `at`.
    Asked { why: Outcome, at: Option<Instant> },
    /// It is being killed; the next attempt is at `at`.
    Killing { why: Outcome, at: Option<Instant>, attempts: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    length: Duration,
    /// `None` where the clock cannot count that far.
    passes: Option<Instant>,
}

impl Watch {
    /// A script that starts now.
    pub(super) fn new(limit: Option<Duration>, kill_grace: Duration, now: Instant) -> Self {
        let limit = limit.map(|length| Limit { length, passes: now.checked_add(length) });
        Self { phase: Phase::Running { limit }, kill_grace }
    }

    /// The caller wants it to end. Whoever came first gives the reason.
    pub(super) fn cancel(&mut self, now: Instant) -> Action {
        if matches!(self.phase, Phase::Running { .. }) { self.ask(Outcome::Cancelled, now) } else { Action::Wait }
    }

    /// It has printed too much.
    pub(super) fn printed(&mut self, excess: Excess, now: Instant) -> Action {
        let Excess { limit, far } = excess;
        let why = match &self.phase {
            Phase::Killing { .. } => return Action::Wait,
            Phase::Running { .. } if !far => return self.ask(Outcome::OutputLimit { limit }, now),
            Phase::Asked { .. } if !far => return Action::Wait,
            Phase::Running { .. } => Outcome::OutputLimit { limit },
            Phase::Asked { why, .. } => why.clone(),
        };
        self.kill(why, now)
    }

    /// It is not confined any more: it is to be gone, and not asked. Whoever came first gives the reason.
    pub(super) fn uncovered(&mut self, why: Outcome, now: Instant) -> Action {
        match &self.phase {
            Phase::Killing { .. } => Action::Wait,
            Phase::Running { .. } => self.kill(why, now),
            Phase::Asked { why, .. } => {
                let why = why.clone();
                self.kill(why, now)
            }
        }
    }

    /// What the time of day says.
    pub(super) fn tick(&mut self, now: Instant) -> Action {
        if self.wakes().is_none_or(|at| now < at) {
            return Action::Wait;
        }
        match &mut self.phase {
            Phase::Running { limit } => {
                let length = limit.map(|limit| limit.length).unwrap_or_default();
                let limit_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
                self.ask(Outcome::TimedOut { limit_ms }, now)
            }
            Phase::Asked { why, .. } => {
                let why = why.clone();
                self.kill(why, now)
            }
            Phase::Killing { at, attempts, .. } => {
                let pause = FIRST_PAUSE.saturating_mul(1 << (*attempts).min(16)).min(LONGEST_PAUSE);
                *at = now.checked_add(pause);
                *attempts = attempts.saturating_add(1);
                if *attempts == LINGERING { Action::KillAndTell } else { Action::Kill }
            }
        }
    }

    /// When [`Watch::tick`] has something to say next.
    pub(super) fn wakes(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running { limit } => limit.and_then(|limit| limit.passes),
            Phase::Asked { at, .. } | Phase::Killing { at, .. } => *at,
        }
    }

    /// Why it has to end; `None` while nobody wants that. **Invariant:** reported only when the whole tree is gone.
    pub(super) fn why(&self) -> Option<&Outcome> {
        match &self.phase {
            Phase::Running { .. } => None,
            Phase::Asked { why, .. } | Phase::Killing { why, .. } => Some(why),
        }
    }

    fn kill(&mut self, why: Outcome, now: Instant) -> Action {
        self.phase = Phase::Killing { why, at: now.checked_add(FIRST_PAUSE), attempts: 1 };
        Action::Kill
    }

    fn ask(&mut self, why: Outcome, now: Instant) -> Action {
        self.phase = Phase::Asked { why, at: now.checked_add(self.kill_grace) };
        Action::Terminate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_script_without_limit_is_never_woken() {
        let now = Instant::now();
        let mut watch = Watch::new(None, SECOND, now);
        assert_eq!((watch.wakes(), watch.tick(now + SECOND * 1_000_000)), (None, Action::Wait));
        assert_eq!(watch.why(), None);
        assert_eq!(Watch::new(Some(Duration::MAX), SECOND, now).wakes(), None);
    }

    #[test]
    fn the_limit_asks_first_and_kills_after_the_grace() {
        let now = Instant::now();
        let mut watch = Watch::new(Some(SECOND * 10), SECOND * 2, now);
        assert_eq!(watch.tick(now + SECOND * 9), Action::Wait);
        assert_eq!(watch.tick(now + SECOND * 10), Action::Terminate);
        assert_eq!(watch.why(), Some(&Outcome::TimedOut { limit_ms: 10_000 }));
        assert_eq!(watch.tick(now + SECOND * 11), Action::Wait);
        assert_eq!(watch.tick(now + SECOND * 12), Action::Kill);
        assert_eq!(watch.tick(now + SECOND * 12), Action::Wait);
        assert_eq!(watch.tick(now + SECOND * 13), Action::Kill);
    }

    #[test]
    fn the_first_reason_stays() {
        let now = Instant::now();
        let mut watch = Watch::new(Some(SECOND), SECOND, now);
        assert_eq!(watch.cancel(now), Action::Terminate);
        assert_eq!(watch.cancel(now), Action::Wait);
        assert_eq!(watch.tick(now + SECOND), Action::Kill);
        assert_eq!(watch.why(), Some(&Outcome::Cancelled));
    }

    #[test]
    fn what_is_uncovered_is_killed_at_once_and_the_first_reason_stays() {
        let now = Instant::now();
        let why = Outcome::NotConfined { step: "uncovered".into(), reason: "x".into() };
        let mut watch = Watch::new(None, SECOND, now);
        assert_eq!((watch.uncovered(why.clone(), now), watch.why()), (Action::Kill, Some(&why)));
        assert_eq!(watch.uncovered(why.clone(), now), Action::Wait);
        let mut watch = Watch::new(None, SECOND, now);
        assert_eq!(watch.cancel(now), Action::Terminate);
        assert_eq!((watch.uncovered(why, now), watch.why()), (Action::Kill, Some(&Outcome::Cancelled)));
    }

    #[test]
    fn a_job_that_prints_too_much_is_asked_to_end_and_killed_if_it_goes_on() {
        let now = Instant::now();
        let [little, much] = [false, true].map(|far| Excess { limit: 9, far });
        let limit = Outcome::OutputLimit { limit: 9 };
        let mut watch = Watch::new(None, SECOND, now);
        assert_eq!((watch.printed(little, now), watch.why()), (Action::Terminate, Some(&limit)));
        assert_eq!((watch.printed(little, now), watch.wakes()), (Action::Wait, Some(now + SECOND)));
        assert_eq!((watch.printed(much, now), watch.why()), (Action::Kill, Some(&limit)));
        assert_eq!((watch.printed(much, now), watch.wakes()), (Action::Wait, Some(now + FIRST_PAUSE)));
        let mut watch = Watch::new(None, SECOND, now);
        assert_eq!((watch.printed(much, now), watch.why()), (Action::Kill, Some(&limit)));
        let mut watch = Watch::new(None, SECOND, now);
        watch.cancel(now);
        assert_eq!((watch.printed(much, now), watch.why()), (Action::Kill, Some(&Outcome::Cancelled)));
    }

    #[test]
    fn without_grace_killing_follows_at_once() {
        let now = Instant::now();
        let mut watch = Watch::new(None, Duration::ZERO, now);
        assert_eq!((watch.cancel(now), watch.tick(now)), (Action::Terminate, Action::Kill));
    }

    #[test]
    fn those_that_cannot_be_killed_are_told_once_and_tried_for_ever() {
        let start = Instant::now();
        let mut watch = Watch::new(None, Duration::ZERO, start);
        watch.cancel(start);
        let mut told = Vec::new();
        for attempt in 0..200 {
            let at = watch.wakes().unwrap();
            if watch.tick(at) == Action::KillAndTell {
                told.push((attempt, at - start));
            }
        }
        let [(_, after)] = told[..] else { panic!("{told:?}") };
        assert!((SECOND * 5..SECOND * 15).contains(&after), "{after:?}");
        assert!(watch.wakes().unwrap() - start > SECOND * 100);
    }
}
