//! Whom there is to kill, and what an init system does about it.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use super::Random;
use super::calls::Way;
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Agent,
    Executor,
    Keeper,
    Monitor,
}

impl Kind {
    /// Those of an agent with this executor, the monitors thrice: they are many.
    fn all(mode: Mode) -> Vec<Self> {
        let mut all = vec![Self::Agent, Self::Executor, Self::Monitor, Self::Monitor, Self::Monitor];
        if mode == Mode::Own {
            all.push(Self::Keeper);
        }
        all
    }
}

/// Every process of root's or the agent's that runs the executor's part of the program.
pub(super) fn program(site: &Site) -> Vec<u32> {
    let config = site.agent().config().display().to_string();
    host::with_words(|words| words.contains("serve-") && words.contains(&config))
}

/// A monitor leads a session of its own; so does what it has forked and is no script yet. Where nothing confines that, it is not
/// to be killed in the monitor's place: it may be a script by then, and whomever one leaves that is killed is left alone.
fn monitors(site: &Site) -> Vec<u32> {
    let leaders: Vec<u32> = program(site).into_iter().filter(|pid| host::leads_session(*pid)).collect();
    let is_forked = |pid: u32| host::parent_of(pid).is_none_or(|above| leaders.contains(&above));
    leaders.iter().copied().filter(|pid| site.agent().mode != Mode::Private || !is_forked(*pid)).collect()
}

/// Whose parent is gone, or is another than they are. The executor is a child of the agent, of the keeper, or of the
/// test; a monitor that does not lead its session yet is the executor's.
pub(super) fn service(site: &Site) -> Option<u32> {
    let keeper = keeper(site);
    let all = program(site);
    let is_service = |pid: &u32| {
        let above = host::parent_of(*pid);
        Some(*pid) != keeper
            && host::shares_session(*pid)
            && above.is_none_or(|above| Some(above) == keeper || !all.contains(&above))
    };
    all.iter().copied().find(is_service)
}

/// The child of the agent that has the executor as its own, unless that was killed.
pub(super) fn keeper(site: &Site) -> Option<u32> {
    let own = site.agent().mode == Mode::Own;
    let keepers = || program(site).into_iter().find(|pid| host::parent_of(*pid) == Some(site.agent().pid()));
    if own { keepers() } else { None }
}

/// Kills one of a kind, if there is one. One who was killed may look alive for a moment, and is put among `dying`.
fn kill(site: &mut Site, kind: Kind, random: &mut Random, dying: &mut Vec<u32>) -> bool {
    let victim = match kind {
        Kind::Agent => {
            site.agent_mut().kill();
            return true;
        }
        Kind::Executor => service(site),
        Kind::Keeper => keeper(site),
        Kind::Monitor => {
            let all = monitors(site);
            let chosen = usize::try_from(random.below(all.len().max(1) as u64)).unwrap();
            all.get(chosen).copied()
        }
    };
    dying.extend(victim.inspect(|pid| host::kill(*pid, Signal::SIGKILL)));
    victim.is_some()
}

/// Who is to be killed next: every kind as often as it is dealt, in an order of chance.
pub(super) struct Deck {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    /// How many of each kind were killed.
    pub(super) killed: BTreeMap<Kind, usize>,
    dying: Vec<u32>,
}

impl Deck {
    pub(super) fn of(mode: Mode) -> Self {
        Self { kinds: Kind::all(mode), left: Vec::new(), killed: BTreeMap::new(), dying: Vec::new() }
    }

    /// The first kind of which nobody was killed.
    pub(super) fn missing(&self) -> Option<Kind> {
        self.kinds.iter().copied().find(|kind| !self.killed.contains_key(kind))
    }

    /// Kills the next, who stays in the deck if there is none just now. Whether a monitor was killed.
    pub(super) fn deal(&mut self, site: &mut Site, random: &mut Random) -> bool {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let chosen = usize::try_from(random.below(self.left.len() as u64)).unwrap();
        let kind = self.left[chosen];
        let killed = kill(site, kind, random, &mut self.dying);
        if killed {
            self.left.swap_remove(chosen);
            *self.killed.entry(kind).or_default() += 1;
        }
        killed && kind == Kind::Monitor
    }

    /// Waits until everybody is there again. An agent that has lost the keeper of its executor serves on without, until it
    /// is started again.
    pub(super) fn heal(&mut self, site: &mut Site, way: &Way) {
        eventually("the end of everybody who was killed", || {
            self.dying.retain(|pid| host::alive(*pid));
            self.dying.is_empty().then_some(())
        });
        look_after(site, way);
        if site.agent().mode == Mode::Own {
            if keeper(site).is_none() {
                site.agent_mut().kill();
                look_after(site, way);
            }
            eventually("an executor", || service(site));
        }
    }
}

/// Starts again who has ended, as the init system would.
pub(super) fn look_after(site: &mut Site, way: &Way) {
    if site.agent_mut().has_ended() {
        site.start(0);
        way.moved(site.agent().address());
    }
    site.agent_mut().look_after_service();
}
