//! Orders to the executor, as its monitor takes them: bytes and descriptors from a front-end that may be hostile.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ctrl_exec::executor::{Asked, take_order};
use ctrl_exec::sys::{fdpass, pipe};
use ctrl_exec::wire::control::{Control, Reloaded};
use ctrl_exec::wire::frame::{self, PREFIX};
use ctrl_exec::wire::limits;
use ctrl_exec::wire::order::{Command, Mode, Order, Report};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longer than any input needs, so that what is late is late everywhere.
const PATIENCE: Duration = Duration::from_secs(3);

/// One of each kind of descriptor: device, file, reading end of a pipe, directory.
static THINGS: LazyLock<[std::os::fd::OwnedFd; 4]> = LazyLock::new(|| {
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (reader, writer) = pipe::pipe().unwrap();
    // Never closed: a pipe without a writer is another kind of thing.
    std::mem::forget(writer);
    [null.into(), tempfile::tempfile().unwrap().into(), reader, File::open("/").unwrap().into()]
});

/// The first byte says whether the length is right and how the bytes are cut, the second and third which descriptors
/// travel with them.
pub fn order(bytes: &[u8]) {
    let Some(([how, count, kinds], body)) = bytes.split_first_chunk::<3>() else { return };
    let things = descriptors(*count, *kinds);
    let framed = how & 1 == 0;
    let message = if framed { prefixed(body) } else { body.to_vec() };
    let lowest = lowest_free();
    let whole = taken(&message, &things, message.len());
    let cut = usize::from(how >> 1).min(message.len());
    assert_eq!(taken(&message, &things, cut), whole, "cut at {cut}");
    assert_eq!(lowest_free(), lowest, "a descriptor stayed open");
    if framed {
        for refused in [body.len() > limits::ORDER, serde_json::from_slice::<serde_json::Value>(body).is_err()] {
            assert!(!refused || whole.is_err());
        }
    }
    same_again::<Order>(body);
    same_again::<Command>(body);
    same_again::<Report>(body);
    same_again::<Control>(body);
    same_again::<Reloaded>(body);
}

fn descriptors(count: u8, kinds: u8) -> Vec<BorrowedFd<'static>> {
    let [null, file, fifo, directory] = &*THINGS;
    let right = [null, null, null, file, file, fifo].map(AsFd::as_fd);
    // Mostly what belongs there; one place may hold something else.
    let other = [null, file, fifo, directory].map(AsFd::as_fd);
    let mut all: Vec<_> = right.into_iter().cycle().take(usize::from(count % 9)).collect();
    if let Some(place) = all.get_mut(usize::from(kinds >> 2)) {
        *place = other[usize::from(kinds & 3)];
    }
    all
}

fn prefixed(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&size.to_be_bytes()[..PREFIX], body].concat()
}

/// What becomes of a message that arrives in two pieces, the descriptors with the first.
fn taken(message: &[u8], things: &[BorrowedFd<'_>], cut: usize) -> Result<String, String> {
    let (ours, theirs) = fdpass::pair(fdpass::Kind::Stream).unwrap();
    let (first, second) = message.split_at(cut);
    // Whatever there is travels with the first byte.
    let (first, second) = if first.is_empty() { (second, first) } else { (first, second) };
    if !first.is_empty() {
        fdpass::send(&ours, first, things).unwrap();
    }
    if !second.is_empty() {
        fdpass::send(&ours, second, &[]).unwrap();
    }
    drop(ours);
    match take_order(&theirs, None, Instant::now() + PATIENCE) {
        Err(refusal) => {
            assert_ne!(refusal.code(), "order-late");
            Err(format!("{} {}", refusal.code(), refusal.text()))
        }
        Ok(Asked::Control(word)) => {
            assert!(things.is_empty());
            Ok(format!("{word:?}"))
        }
        Ok(Asked::Order(intake)) => {
            assert_eq!(intake.order.descriptors(), things.len());
            assert_eq!(intake.job.is_some(), intake.order.mode() == Mode::Detached);
            Ok(format!("{:?} {:?}", intake.order, intake.order.check().is_ok()))
        }
    }
}

/// The number that the next descriptor would get.
fn lowest_free() -> i32 {
    THINGS[0].try_clone().unwrap().as_raw_fd()
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) {
    let Ok(message) = frame::decode::<T>(body) else { return };
    let text = frame::encode(&message, limits::ORDER).unwrap();
    let again = frame::decode::<T>(&text[PREFIX..]);
    assert!(again.as_ref().is_ok_and(|again| *again == message), "{message:?}: {again:?}");
}
