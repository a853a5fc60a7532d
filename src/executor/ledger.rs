//! What each monitor is busy with, for those who survive it: a monitor that is killed tells nothing any more, and what an
//! order says, only its monitor has read. So it notes its order before it does anything about it, in memory that it shares
//! with its executor and that one's keeper; whoever buries it finds the note there and writes the audit line.
//!
//! Noting is one system call, and wakes nobody. A note is one line in a place of its own; every word of it is parsed anew
//! by its reader.
//!
//! In front of it stands whether the monitor is at work: from before it is given an order until before it tells the outcome.
//! So nobody who has heard of an outcome finds its monitor counted as one that runs a script, however long it takes the
//! monitor to end.
//!
//! **Invariant:** [`AT_WORK`] is written by whoever gives an order, or by the monitor itself for one that comes on a connection
//! that it keeps, and there before it looks whether it may still take it; [`DONE`] by the monitor alone, or where no order
//! came of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::event::{Audit, ExecEvent};
use crate::sys::memory;
use crate::sys::process::{self, Pid};
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::Order;
use crate::wire::trace::TraceParent;

/// Bytes of a place. The longest note is shorter: a process id, a request id of at most 128 bytes, a script's name of at
/// most 255, a trace of 55.
const PLACE: usize = 512;
/// The first byte of a place.
const AT_WORK: u8 = b'w';
const DONE: u8 = b'-';
/// What stands for no trace.
const NONE: &str = "-";

/// The notes of all monitors of an executor.
#[derive(Debug)]
pub(super) struct Ledger(File);

/// One monitor's place in it.
#[derive(Debug)]
pub(super) struct Place {
    notes: File,
    at: u64,
}

/// A note that is there until this is dropped.
#[derive(Debug)]
pub(super) struct Noted<'a>(&'a Place);

/// What a monitor was busy with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    request: RequestId,
    script: ScriptName,
    trace: Option<TraceParent>,
}

impl Ledger {
    /// An empty one, for this process and those that it forks.
    ///
    /// # Errors
    /// Out of memory or descriptors.
    pub(super) fn new() -> io::Result<Self> {
        memory::shared().map(Self)
    }

    /// The same one, once more.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn share(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// How many places there are that somebody has used: those of monitors of an executor before this one among them.
    pub(super) fn used(&self) -> usize {
        let size = self.0.metadata().map_or(0, |found| found.len());
        usize::try_from(size).unwrap_or(usize::MAX).div_ceil(PLACE)
    }

    /// The place of this number, from 0.
    ///
    /// # Errors
    /// Out of descriptors.
    pub(super) fn place(&self, number: usize) -> io::Result<Place> {
        Ok(Place { notes: self.0.try_clone()?, at: start(number) })
    }

    /// Notes in the place of this number that its monitor is about to be given an order. Whether that could be noted: else
    /// nobody knows from the place whether it is at work.
    pub(super) fn give(&self, number: usize) -> bool {
        matches!(self.0.write_at(&[AT_WORK, b'\n'], start(number)), Ok(2))
    }

    /// No order came of it.
    pub(super) fn take_back(&self, number: usize) {
        drop(self.0.write_at(&[DONE], start(number)));
    }

    /// Whether the monitor of this place is at work, for all that is known.
    pub(super) fn is_at_work(&self, number: usize) -> bool {
        let mut first = [DONE];
        self.0.read_at(&mut first, start(number)).is_err() || first == [AT_WORK]
    }

    /// A monitor was killed by a signal: its line, if it was busy. Its place is empty afterwards.
    pub(super) fn bury(&self, monitor: Pid, signal: i32, audit: Audit<'_>) {
        if let Some(Note { request, script, trace }) = self.strike(monitor) {
            let (request, script, trace) = (&request, &script, trace.as_ref());
            audit.tell(&ExecEvent::Lost { request, script, trace, monitor: monitor.as_raw(), signal });
        }
    }

    fn strike(&self, monitor: Pid) -> Option<Note> {
        let mut bytes = [0; PLACE];
        for number in 0..self.used() {
            let at = start(number);
            let Ok(size) = self.0.read_at(&mut bytes, at) else { continue };
            if let Some((pid, note)) = bytes.get(..size).and_then(read)
                && pid == monitor.as_raw()
            {
                // A note that stays is overwritten by the next.
                drop(self.0.write_at(&[DONE, b'\n'], at));
                return Some(note);
            }
        }
        None
    }
}

impl Place {
    /// Notes an order. What cannot be noted is missing in one line, should it come to that.
    pub(super) fn note(&self, order: &Order) -> Noted<'_> {
        let trace = order.trace().map_or(NONE, TraceParent::as_str);
        let mut line = vec![AT_WORK];
        line.extend_from_slice(
            format!("{} {} {} {trace}\n", process::own_id().as_raw(), order.request(), order.script()).as_bytes(),
        );
        drop(self.notes.write_at(&line, self.at));
        Noted(self)
    }

    /// The order is over, and its outcome is about to be told. A note stays.
    pub(super) fn is_done(&self) {
        drop(self.notes.write_at(&[DONE], self.at));
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        drop(self.0.notes.write_at(&[DONE, b'\n'], self.0.at));
    }
}

/// Where the place of this number begins.
fn start(number: usize) -> u64 {
    u64::try_from(number.saturating_mul(PLACE)).unwrap_or(u64::MAX)
}

fn read(place: &[u8]) -> Option<(i32, Note)> {
    let (_, place) = place.split_first()?;
    let line = std::str::from_utf8(place.split(|byte| *byte == b'\n').next()?).ok()?;
    let [pid, request, script, trace] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
    let trace = if trace == NONE { None } else { Some(TraceParent::parse(trace).ok()?) };
    let note = Note { request: RequestId::parse(request).ok()?, script: ScriptName::parse(script).ok()?, trace };
    Some((pid.parse().ok()?, note))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::wire::order::Mode;

    fn order(request: &str, script: &str) -> Order {
        let request = RequestId::parse(request).unwrap();
        Order::new(ScriptName::parse(script).unwrap(), vec!["secret".into()], request, Mode::Attached).unwrap()
    }

    fn lines(ledger: &Ledger, monitor: Pid) -> Vec<String> {
        let lines = RefCell::new(Vec::new());
        ledger.bury(monitor, 9, &|event: &ExecEvent<'_>| lines.borrow_mut().push(event.line().line()));
        lines.into_inner()
    }

    #[test]
    fn a_killed_monitor_leaves_its_line_once_and_one_that_is_done_none() {
        let ledger = Ledger::new().unwrap();
        let (first, second) = (ledger.place(0).unwrap(), ledger.place(3).unwrap());
        let own = process::own_id();
        drop(first.note(&order(&"r".repeat(128), &"s".repeat(255))));
        assert_eq!(lines(&ledger, own), Vec::<String>::new(), "it has told the outcome itself");
        let trace = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        let noted = second.note(&order("ab", "disk").traced(Some(trace)));
        assert_eq!(lines(&ledger.share().unwrap(), Pid::from_raw(1)), Vec::<String>::new(), "somebody else's");
        let want = "ACTION=exec EXIT=-1 MONITOR=1 OUTCOME=lost REASON=\"outcome-unknown: the monitor was killed by signal 9\" \
            REQID=ab SCRIPT=disk TRACE=00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let found = lines(&ledger, own);
        assert_eq!(found, [want.replace("MONITOR=1", &format!("MONITOR={own}"))]);
        assert_eq!(lines(&ledger, own), Vec::<String>::new(), "told already");
        drop(noted);
        assert_eq!(ledger.used(), 4);
    }

    #[test]
    fn what_is_no_note_is_none() {
        for text in ["", "\n", "1 a b", "x a b -\n", "1 ../a b -\n", "1 a b c\n", "1 a b - -\n", "\u{0}\u{0}"] {
            for state in ["", "w", "-"] {
                let text = format!("{state}{text}");
                assert_eq!(read(text.as_bytes()), None, "{text:?}");
            }
        }
        assert_eq!(read(b"w7 a b -\nrest of an older one").unwrap().0, 7);
        assert_eq!(read(b"-7 a b -\n").unwrap().0, 7);
    }

    #[test]
    fn a_monitor_is_at_work_from_before_its_order_until_before_its_outcome() {
        let ledger = Ledger::new().unwrap();
        let place = ledger.place(2).unwrap();
        assert!(!ledger.is_at_work(2), "nobody was there");
        assert!(ledger.give(2) && ledger.is_at_work(2));
        let noted = place.note(&order("ab", "disk"));
        assert!(ledger.is_at_work(2) && !ledger.is_at_work(1));
        place.is_done();
        assert!(!ledger.is_at_work(2));
        assert_eq!(lines(&ledger, process::own_id()).len(), 1, "killed before it could tell");
        drop(noted);
        assert!(ledger.give(2));
        ledger.take_back(2);
        assert!(!ledger.is_at_work(2));
        // On a connection that it keeps.
        let noted = place.note(&order("ac", "disk"));
        assert!(ledger.is_at_work(2));
        drop(noted);
        assert!(!ledger.is_at_work(2));
    }
}
