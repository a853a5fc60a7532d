//! Lines that the log has not taken yet, in their order, and the count of those that there was no room for.

use std::collections::VecDeque;

use super::event::{Event, Level};
use super::sink::{Delivery, Sink};
use super::syslog;
use crate::sys::localtime::LocalTime;

/// Most bytes of lines that wait: some thousands of usual ones.
const MOST: usize = 1 << 20;
/// Lines that are written in one go, so that nobody who has one more to write is kept from it for long.
const BATCH: usize = 64;

#[derive(Default)]
pub(super) struct Backlog {
    lines: VecDeque<Late>,
    bytes: usize,
    /// Lines that are lost and not told of.
    lost: u64,
    /// Lines that were ever lost.
    total: u64,
}

struct Late {
    event: Event,
    time: LocalTime,
    /// How many lost lines it tells of, if that is what it is for.
    tells_of: Option<u64>,
}

impl Backlog {
    /// Lines that wait, and the one that would tell of those that are lost.
    pub(super) fn waiting(&self) -> usize {
        self.lines.len() + usize::from(self.lost > 0)
    }

    /// Lines that are lost if this is.
    pub(super) fn at_stake(&self) -> u64 {
        self.lines.iter().map(|late| late.tells_of.unwrap_or(1)).fold(self.lost, u64::saturating_add)
    }

    /// Lines that were ever lost.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Counts lines that were lost.
    pub(super) const fn lose(&mut self, lines: u64) {
        self.lost = self.lost.saturating_add(lines);
        self.total = self.total.saturating_add(lines);
    }

    /// Keeps a line for later, if there is room.
    pub(super) fn keep(&mut self, event: Event) -> Result<(), Event> {
        let size = event.size();
        if self.bytes.saturating_add(size) > MOST {
            return Err(event);
        }
        // **Invariant:** what was lost stands where it would have stood.
        if self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            self.push(notice(lost), Some(lost));
        }
        self.push(event, None);
        Ok(())
    }

    /// Writes what the log takes now, but no more than a few lines.
    pub(super) fn write(&mut self, sink: &mut Sink) -> Delivery {
        for _ in 0..BATCH {
            let Some(late) = self.lines.front() else {
                self.give_back();
                return self.tell_of_loss(sink);
            };
            match sink.deliver(&late.event.render(), Some(late.time)) {
                Delivery::Full => return Delivery::Full,
                Delivery::Sent => drop(self.pop()),
                Delivery::Broken => match self.pop().and_then(|late| late.tells_of) {
                    Some(lines) => self.lost = self.lost.saturating_add(lines),
                    None => self.lose(1),
                },
            }
        }
        Delivery::Sent
    }

    /// Says how many lines were lost, if any were. Every line that waits has to be written before.
    pub(super) fn tell_of_loss(&mut self, sink: &mut Sink) -> Delivery {
        if self.lost == 0 {
            return Delivery::Sent;
        }
        let delivery = sink.deliver(&notice(self.lost).render(), None);
        if delivery == Delivery::Sent {
            self.lost = 0;
        }
        delivery
    }

    /// Says how many lines are lost with this program, where lines go that the log has no room for. Once that is said they
    /// are gone.
    pub(super) fn give_up(&mut self, sink: &mut Sink) {
        let lost = self.at_stake();
        if lost > 0 && sink.pass_over(&notice(lost).render()) == Delivery::Sent {
            (self.lines, self.bytes, self.lost) = (VecDeque::new(), 0, 0);
        }
    }

    fn push(&mut self, event: Event, tells_of: Option<u64>) {
        self.bytes = self.bytes.saturating_add(event.size());
        self.lines.push_back(Late { event, time: syslog::now(), tells_of });
    }

    fn pop(&mut self) -> Option<Late> {
        let late = self.lines.pop_front()?;
        self.bytes = self.bytes.saturating_sub(late.event.size());
        Some(late)
    }

    /// A log that was stuck once must not cost memory for ever.
    fn give_back(&mut self) {
        if self.lines.capacity() > BATCH {
            self.lines = VecDeque::new();
        }
    }
}

fn notice(lost: u64) -> Event {
    Event::new(Level::Error, "log-lost").field("COUNT", lost).field("REASON", "the log did not take them in time")
}
