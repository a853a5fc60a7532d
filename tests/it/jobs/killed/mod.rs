//! Agent, executor, its keeper and monitors are killed at any moment, again and again: no job is lost without a word,
//! none runs twice, and nobody and nothing is left behind.
//!
//! `CTRL_EXEC_JOB_ROUNDS`, `CTRL_EXEC_JOBS` and `CTRL_EXEC_JOB_SEED` make it longer, larger and repeatable; `cargo xtask
//! kill` does, with each kind of executor. Where the host lends control groups, runs have limits that need one each; `cargo
//! xtask vm` boots a host that does.

mod calls;
mod left;
mod who;

use std::time::Duration;

use nix::sys::signal::Signal;

use self::calls::{Call, Heard, SCRIPT, Way};
use self::left::Before;
use self::who::Deck;
use super::{Caller, WAIT};
use crate::harness::executor::Mode;
use crate::harness::groups::Slice;
use crate::harness::{Site, eventually, host};

/// One attached run to so many jobs.
const JOBS_TO_A_RUN: u64 = 5;
/// What no run can have without a control group.
const LIMITS: &str = "memory_max = 64M\nprocesses_max = 16";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Numbers that look random and come again with their seed (`xorshift64*`).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % limit
    }
}

#[test]
fn whoever_is_killed_no_job_is_lost_silently_and_none_runs_twice() {
    let mode = Mode::default();
    let slice = Mode::ROOT.contains(&mode).then(Slice::new).flatten();
    trial(mode, slice.as_ref());
}

#[test]
fn whoever_is_killed_no_control_group_of_a_run_is_left() {
    // Where another is the usual one, the test above has limits already.
    let modes = if Mode::default() == Mode::Private { &Mode::ROOT[..] } else { &[] };
    for mode in modes.iter().copied() {
        // A host without any; the virtual machine has all.
        let Some(slice) = Slice::new() else { return };
        trial(mode, Some(&slice));
    }
}

fn trial(mode: Mode, slice: Option<&Slice>) {
    let (rounds, most, seed) =
        (number("CTRL_EXEC_JOB_ROUNDS", 5), number("CTRL_EXEC_JOBS", 24), number("CTRL_EXEC_JOB_SEED", 7).max(1));
    let again = format!("{mode:?}: {rounds} rounds of {most} jobs, CTRL_EXEC_JOB_SEED={seed}");
    eprintln!("{again}");
    // A script's own child has none of our paths on its command line. This is no time that anybody else sleeps.
    let mark = format!("{:07}", std::process::id());
    let everything = Before::now(&mark);
    let mut site = site(mode, most, slice);
    let before = Before::now(&mark);
    // Not while it gives pages back, which it reads its own list of them for.
    let settled = |all: &Vec<String>| !all.iter().any(|path| path.ends_with("/smaps"));
    let look = || who::service(&site).map(|_| left::descriptors(&site)).filter(settled);
    let descriptors = eventually("an executor", look);
    shows(&site, &before, slice);
    let way = Way::to(&site);
    let (mut random, mut deck) = (Random(seed), Deck::of(mode));
    for number in 0..rounds {
        let calls: Vec<Call> = (0..most + most.div_ceil(JOBS_TO_A_RUN))
            .map(|place| Call {
                script: format!("job{place}"),
                detached: place < most,
                id: format!("r{number}-{place}"),
                work: format!("0.{:03}{mark}", random.below(500)),
                exit: random.below(120),
            })
            .collect();
        let (heard, killed) = round(&mut site, &way, &calls, &mut deck, &mut random);
        let all: Vec<(&Call, Heard)> = calls.iter().zip(heard).collect();
        calls::judge(&site, &all, killed);
        before.nothing_is_left_of_runs(&site, slice);
    }
    eprintln!("killed: {:?}", deck.killed);
    assert_eq!(deck.missing(), None, "{:?} were killed: {again}", deck.killed);
    serves_on(&mut site, &descriptors);
    before.nothing_is_left_of_runs(&site, slice);
    let place = site.dir().display().to_string();
    assert_eq!(site.agent_mut().stop(), Some(0));
    if mode == Mode::System {
        assert_eq!(site.agent_mut().take_service().end(Signal::SIGTERM), Some(0));
    }
    everything.nothing_is_left(&place);
}

/// An agent with scripts for this many jobs and the runs besides, each with limits where there are groups to enforce them.
fn site(mode: Mode, jobs: u64, slice: Option<&Slice>) -> Site {
    let builder = Site::builder().executor(mode).agent("rate_limit_disable = yes").sh("wait", WAIT);
    let builder = if slice.is_some() { builder.section(LIMITS) } else { builder };
    let all = 0..jobs + jobs.div_ceil(JOBS_TO_A_RUN);
    let mut site = all.fold(builder, |builder, place| builder.sh(&format!("job{place}"), SCRIPT)).prepare();
    site.agent_mut().group = slice.map(Slice::service);
    site.start(0);
    site
}

/// Sees that whatever a job has shows while it runs, and that nothing does afterwards.
fn shows(site: &Site, before: &Before, slice: Option<&Slice>) {
    let caller = Caller::of(site);
    caller.accepted("wait", "first");
    super::waiting(site);
    let there = before.of_runs(site, slice);
    let shown = |what: &str| there.iter().any(|each| each.contains(what));
    for what in ["of the program", "of a script", "file first.status", "file first.cancel"] {
        assert!(shown(what), "{what} does not show: {there:?}");
    }
    assert!(slice.is_none() || shown("control group run-"), "{there:?}");
    super::go(site);
    assert_eq!(caller.ended("first")["exit"], 3);
    before.nothing_is_left_of_runs(site, slice);
}

/// One round: asks for everything at once while somebody kills. Returns what the callers have heard, and how many monitors
/// were killed.
fn round(site: &mut Site, way: &Way, calls: &[Call], deck: &mut Deck, random: &mut Random) -> (Vec<Heard>, usize) {
    std::thread::scope(|scope| {
        let asking: Vec<_> = calls.iter().map(|call| scope.spawn(|| way.ask(call))).collect();
        let mut killed = 0;
        for _ in 0..3 + random.below(5) {
            std::thread::sleep(Duration::from_millis(random.below(120)));
            who::look_after(site, way);
            killed += usize::from(deck.deal(site, random));
        }
        deck.heal(site, way);
        (asking.into_iter().map(|thread| thread.join().unwrap()).collect(), killed)
    })
}

/// Demands that a job is carried out after all that, by an executor that has no more than one that has just started, and that
/// nobody is left unburied.
fn serves_on(site: &mut Site, descriptors: &[String]) {
    // An executor that was killed is missed, and buried, when the next order is given; the system's, by the init system.
    site.agent_mut().look_after_service();
    let caller = Caller::of(site);
    caller.accepted("job0", "last");
    let last = caller.ended("last");
    assert_eq!(last["status"], "done", "{last}");
    let (executor, keeper) = (who::service(site), who::keeper(site));
    assert!(executor == Some(site.agent().executor()) && keeper.is_some() == (site.agent().mode == Mode::Own));
    let all = [Some(site.agent().pid()), executor, keeper];
    for pid in all.into_iter().flatten() {
        eventually("no zombie", || (host::zombies(pid) == 0).then_some(()));
    }
    left::no_descriptors_but(site, descriptors);
}
