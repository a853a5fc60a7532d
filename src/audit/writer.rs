//! Who writes lines: whoever has one, or the thread that is there for lines that have to wait.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::event::Event;
use super::locked;
use super::sink::{Delivery, Sink};
use crate::sys::poll;

/// The longest wait for room in the log without another look: it may have been replaced.
const LOOK: Duration = Duration::from_secs(1);
/// The pause where room was there and no line fits in.
const PAUSE: Duration = Duration::from_millis(20);
/// The thread's stack, in bytes: a line takes some tens of kilobytes at most, and they are not on it.
const STACK: usize = 128 * 1024;

pub(super) struct Shared {
    serves: bool,
    state: Mutex<State>,
    /// There are lines that wait, or nothing will come any more.
    work: Condvar,
}

struct State {
    sink: Sink,
    backlog: Backlog,
    /// The thread for lines that wait is there.
    writer: bool,
    closed: bool,
}

impl Shared {
    pub(super) fn new(sink: Sink, serves: bool) -> Self {
        let state = Mutex::new(State { sink, backlog: Backlog::default(), writer: false, closed: false });
        Self { serves, state, work: Condvar::new() }
    }

    pub(super) fn emit(self: &Arc<Self>, event: Event) {
        let rendered = event.render();
        let mut state = self.state();
        let State { sink, backlog, writer, .. } = &mut *state;
        if !*writer && backlog.waiting() > 0 {
            backlog.write(sink);
        }
        if backlog.waiting() == 0 {
            match sink.deliver(&rendered, None) {
                Delivery::Sent => return,
                Delivery::Full => {}
                // Nobody is there to be told, until somebody is.
                Delivery::Broken => return backlog.lose(1),
            }
        }
        drop(rendered);
        if let Err(event) = backlog.keep(event)
            && sink.pass_over(&event.render()) != Delivery::Sent
        {
            backlog.lose(1);
        }
        if self.serves {
            self.wake(&mut state);
        }
    }

    pub(super) fn flush(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let mut state = self.state();
            let (delivery, some) = write(&mut state);
            if delivery == Delivery::Sent && state.backlog.waiting() == 0 {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || delivery == Delivery::Broken {
                return false;
            }
            if delivery == Delivery::Full {
                wait_for_room(state, left.min(PAUSE), some);
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().backlog.waiting()
    }

    pub(super) fn lost(&self) -> u64 {
        self.state().backlog.total()
    }

    pub(super) fn at_stake(&self) -> u64 {
        let mut state = self.state();
        // A line of which some is on its way is in nobody's backlog.
        let begun = state.sink.settle() != Delivery::Sent;
        state.backlog.at_stake().saturating_add(u64::from(begun))
    }

    pub(super) fn farewell(&self, limit: Duration) {
        if !self.flush(limit) {
            let mut state = self.state();
            let State { sink, backlog, .. } = &mut *state;
            backlog.give_up(sink);
        }
    }

    pub(super) fn forget_stderr(&self) {
        self.state().sink.forget_stderr();
    }

    pub(super) fn count_lost(&self, lines: u64) {
        self.state().backlog.lose(lines);
    }

    pub(super) fn close(&self, limit: Duration) {
        self.farewell(limit);
        self.state().closed = true;
        self.work.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = locked(&self.state);
        // **Invariant:** a fork, which has its parent's lines, does not write them once more.
        if state.sink.is_a_fork_s() {
            (state.backlog, state.writer) = (Backlog::default(), false);
        }
        state
    }

    fn wake(self: &Arc<Self>, state: &mut State) {
        if state.writer {
            return self.work.notify_one();
        }
        let shared = Arc::clone(self);
        let thread = thread::Builder::new().name("log".to_owned()).stack_size(STACK);
        // Without one, lines wait for the next event, as in a program of one thread.
        state.writer = thread.spawn(move || shared.write_on()).is_ok();
    }

    /// The thread.
    fn write_on(&self) {
        let mut state = self.state();
        loop {
            let (delivery, some) = write(&mut state);
            if state.closed {
                return;
            }
            let nothing_left = state.backlog.waiting() == 0;
            state = match delivery {
                Delivery::Sent if nothing_left => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                // Nobody is there; who comes will be told.
                Delivery::Broken => self.work.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0,
                Delivery::Full => {
                    wait_for_room(state, LOOK, some);
                    self.state()
                }
                Delivery::Sent => {
                    // Whoever has another line is let in.
                    drop(state);
                    self.state()
                }
            };
        }
    }
}

/// Some of what waits, and whether any of it was taken; what else can be written is left for the next time.
fn write(state: &mut State) -> (Delivery, bool) {
    let State { sink, backlog, .. } = state;
    let before = backlog.waiting();
    let delivery = match backlog.write(sink) {
        Delivery::Sent if backlog.waiting() == 0 => sink.settle(),
        other => other,
    };
    (delivery, backlog.waiting() < before)
}

/// Until the log takes lines again, perhaps. `some` were taken a moment ago.
fn wait_for_room(state: MutexGuard<'_, State>, limit: Duration, some: bool) {
    let waited_for = state.sink.waited_for();
    drop(state);
    let room = waited_for.is_some_and(|descriptor| poll::writable(descriptor.as_fd(), limit).unwrap_or(false));
    // Where there seems to be room all the time and no line fits in, looking again at once would never end.
    if !room || !some {
        thread::sleep(limit.min(PAUSE));
    }
}
