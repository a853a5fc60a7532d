//! A script's output, collected for a buffered reply: each stream cut at a limit.
//!
//! A little is kept in memory. What is more goes to a file (`spool`), so that what hundreds of scripts print takes memory
//! but for moments, and no script waits for another's end. What lies beyond the limit is read and thrown away, so that a
//! script that prints too much still ends.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::excerpt::{Charge, Excerpt};
use super::large::Large;
use super::pump::Sink;
use super::spool::Spool;
use crate::store::StoreError;
use crate::sys::file::FileError;
use crate::wire::run::Output;
use crate::wire::stream::{Channel, Draft};

/// So many bytes of a stream go to the file at once; less is kept in memory.
const BATCH: usize = 64 * 1024;
/// So many bytes of both streams are made into an answer at once.
const SMALL: usize = 16 * 1024;

/// Both streams, being collected.
#[derive(Debug)]
pub struct Collector {
    stdout: Mutex<Kept>,
    stderr: Mutex<Kept>,
    spool: Arc<Spool>,
}

/// What was collected.
#[derive(Debug)]
pub(super) enum Collected {
    /// Standard output and standard error.
    Small(Output, Output),
    /// The same, too large to be answered with at once.
    Large(Printed),
}

/// Outputs that are, at least one of them, large.
#[derive(Debug)]
pub(super) struct Printed {
    stdout: Stream,
    stderr: Stream,
    spool: Arc<Spool>,
}

#[derive(Debug)]
struct Stream {
    excerpt: Excerpt,
    truncated: bool,
    lacking: bool,
}

impl Printed {
    /// What a reply says of them beside what was printed.
    pub(super) fn marks(&self) -> (Output, Output) {
        let mark = |stream: &Stream| Output { truncated: stream.truncated, ..Output::default() };
        (mark(&self.stdout), mark(&self.stderr))
    }

    /// Why something of them is missing that is within the limit.
    pub(super) fn lost(&self) -> Option<&FileError> {
        self.spool.failure().filter(|_| self.stdout.lacking || self.stderr.lacking)
    }

    /// The answer with these fields and the outputs.
    pub(super) fn told(self, fields: &[u8]) -> Result<Large, StoreError> {
        let whole =
            |Stream { excerpt, truncated, .. }| if truncated { excerpt.whole_characters() } else { Ok(excerpt) };
        Large::object(vec![("stdout", whole(self.stdout)?), ("stderr", whole(self.stderr)?)], fields)
    }
}

#[derive(Debug)]
struct Kept {
    /// What is in memory: the end, and often everything.
    bytes: Vec<u8>,
    /// How much is on file, and from where on.
    written: u64,
    from: u64,
    /// How much may still come.
    left: usize,
    truncated: bool,
    /// There is no file: all is in memory, and counts.
    charge: Option<Charge>,
    /// There is no memory either.
    lacking: bool,
}

impl Collector {
    /// A collector that keeps the first `limit` bytes of each stream, and what is much in a file in this directory.
    #[must_use]
    pub fn new(limit: usize, dir: PathBuf) -> Self {
        let second = u64::try_from(limit).unwrap_or(u64::MAX);
        let kept = |from| Mutex::new(Kept::new(limit, from));
        Self { stdout: kept(0), stderr: kept(second), spool: Arc::new(Spool::new(dir)) }
    }

    /// What was collected.
    pub(super) async fn finish(self) -> Collected {
        let (stdout, stderr) = (self.stdout.into_inner(), self.stderr.into_inner());
        let is_small = [&stdout, &stderr].into_iter().all(|kept| kept.is_in_memory() && !kept.lacking);
        // Of what is lacking something is to be said, however little is left.
        if is_small && stdout.bytes.len() + stderr.bytes.len() <= SMALL {
            let output = |Kept { bytes, truncated, .. }| Output::of(bytes, truncated);
            return Collected::Small(output(stdout), output(stderr));
        }
        let (stdout, stderr) = (stdout.finish(&self.spool).await, stderr.finish(&self.spool).await);
        Collected::Large(Printed { stdout, stderr, spool: self.spool })
    }
}

impl Sink for Collector {
    async fn take(&self, channel: Channel, draft: &mut Draft) {
        let kept = match channel {
            Channel::Stdout => &self.stdout,
            Channel::Stderr => &self.stderr,
        };
        let mut kept = kept.lock().await;
        kept.keep(draft.output());
        if kept.bytes.len() >= BATCH && kept.charge.is_none() {
            kept.spool(&self.spool).await;
        }
    }
}

impl Kept {
    const fn new(limit: usize, from: u64) -> Self {
        Self { bytes: Vec::new(), written: 0, from, left: limit, truncated: false, charge: None, lacking: false }
    }

    const fn is_in_memory(&self) -> bool {
        self.written == 0
    }

    fn keep(&mut self, bytes: &[u8]) {
        let fits = bytes.get(..self.left).unwrap_or(bytes);
        self.truncated |= fits.len() < bytes.len();
        if self.charge.as_mut().is_some_and(|charge| !charge.grow(fits.len())) {
            return self.give_up();
        }
        self.bytes.extend_from_slice(fits);
        self.left -= fits.len();
    }

    /// Nothing more is kept.
    fn give_up(&mut self) {
        (self.left, self.truncated, self.lacking) = (0, true, true);
    }

    /// Puts what is in memory on file. Where that cannot be done it stays, unless its beginning is on file already.
    async fn spool(&mut self, spool: &Arc<Spool>) {
        let (spool, at) = (Arc::clone(spool), self.from + self.written);
        let bytes = std::mem::take(&mut self.bytes);
        let write = move || {
            let written = spool.write(&bytes, at);
            (bytes, written)
        };
        // A panic, which aborts what ships.
        let Ok((mut bytes, written)) = spawn_blocking(write).await else { return self.give_up() };
        if written {
            self.written += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            bytes.clear();
            self.bytes = bytes;
            return;
        }
        let mut charge = Charge::default();
        if self.is_in_memory() && charge.grow(bytes.len()) {
            (self.bytes, self.charge) = (bytes, Some(charge));
        } else {
            self.give_up();
        }
    }

    async fn finish(mut self, spool: &Arc<Spool>) -> Stream {
        if !self.is_in_memory() && !self.bytes.is_empty() {
            self.spool(spool).await;
        }
        let Self { truncated, lacking, .. } = self;
        let source = spool.source().filter(|_| !self.is_in_memory());
        let excerpt = source.map(|source| Excerpt::of(source, self.from, self.written));
        let held = || Excerpt::held(self.bytes, self.charge.unwrap_or_default());
        Stream { excerpt: excerpt.unwrap_or_else(held), truncated, lacking }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use super::*;
    use crate::agent::excerpt::tests::MEMORY;
    use crate::sys::file::{self, Access};

    /// What was printed, on a disk that fails: a file that the kernel reads nothing from, with a true error of a device's.
    pub(in crate::agent) fn unreadable() -> Printed {
        let file = std::fs::File::open("/proc/self/mem").unwrap();
        let source = Arc::new(crate::agent::excerpt::Source::File(file));
        let stream =
            || Stream { excerpt: Excerpt::of(Arc::clone(&source), 0, 100_000), truncated: false, lacking: false };
        Printed { stdout: stream(), stderr: stream(), spool: Arc::new(Spool::new(PathBuf::new())) }
    }

    /// A collector, and its directory.
    pub(in crate::agent) fn collector(limit: usize) -> (Collector, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Collector::new(limit, dir.path().join("runs")), dir)
    }

    /// What it has collected, as a caller is told.
    pub(in crate::agent) async fn outputs(collector: Collector) -> [Output; 2] {
        let printed = match collector.finish().await {
            Collected::Small(stdout, stderr) => return [stdout, stderr],
            Collected::Large(printed) => printed,
        };
        let (stdout, stderr) = printed.marks();
        let (_, mut json, mut parts) = printed.told(b"{\"exit\":0}").unwrap().into_parts();
        parts.fill(&mut json, usize::MAX).unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        [("stdout", stdout), ("stderr", stderr)].map(|(name, mark)| Output {
            text: value[name].as_str().unwrap().to_owned(),
            base64: value.get(format!("{name}_base64")).map(|text| text.as_str().unwrap().to_owned()),
            ..mark
        })
    }

    fn draft(bytes: &[u8]) -> Draft {
        let mut draft = Draft::new(bytes.len());
        draft.room().extend_from_slice(bytes);
        draft
    }

    #[tokio::test]
    async fn each_stream_is_cut_and_marked_by_itself() {
        let (collector, _dir) = collector(5);
        for piece in ["123", "45"] {
            collector.take(Channel::Stdout, &mut draft(piece.as_bytes())).await;
        }
        for piece in ["123", "456", "7"] {
            collector.take(Channel::Stderr, &mut draft(piece.as_bytes())).await;
        }
        let [stdout, stderr] = outputs(collector).await;
        assert_eq!(stdout, Output { text: "12345".into(), base64: None, truncated: false });
        assert_eq!(stderr, Output { text: "12345".into(), base64: None, truncated: true });
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_kept_beside_the_text() {
        let (collector, _dir) = collector(100);
        collector.take(Channel::Stdout, &mut draft(b"a\xff\0b")).await;
        let [output, _] = outputs(collector).await;
        assert_eq!(output.text, "a\u{FFFD}\0b");
        assert_eq!(STANDARD.decode(output.base64.unwrap()).unwrap(), b"a\xff\0b");
    }

    #[tokio::test]
    async fn what_is_much_is_on_file_and_told_as_if_it_were_not() {
        let (much, odd) = ("é\n".repeat(100_000).into_bytes(), b"\xff\"".repeat(50_000));
        for limit in [1 << 20, 200_001, 70_000, 20_000] {
            let (collector, dir) = collector(limit);
            for (channel, bytes) in [(Channel::Stdout, &much), (Channel::Stderr, &odd)] {
                for piece in bytes.chunks(50_000) {
                    collector.take(channel, &mut draft(piece)).await;
                }
                assert!(collector.stdout.lock().await.bytes.len() <= BATCH);
            }
            let expected =
                [&much, &odd].map(|bytes| Output::of(bytes[..bytes.len().min(limit)].to_vec(), bytes.len() > limit));
            assert_eq!(outputs(collector).await, expected, "{limit}");
            assert_eq!(std::fs::read_dir(dir.path().join("runs")).map_or(0, Iterator::count), 0);
        }
    }

    #[tokio::test]
    async fn without_a_place_on_disk_it_stays_in_memory() {
        let _alone = MEMORY.lock().await;
        let dir = tempfile::tempdir().unwrap();
        file::write_soon(&dir.path().join("file"), b"", Access::private()).unwrap();
        let collector = Collector::new(1 << 20, dir.path().join("file/runs"));
        for _ in 0..10 {
            collector.take(Channel::Stdout, &mut draft(&vec![b'x'; 50_000])).await;
        }
        let [output, _] = outputs(collector).await;
        assert_eq!((output.text.len(), output.truncated), (500_000, false));
    }

    #[test]
    fn without_memory_either_it_is_cut_and_the_reason_is_that_of_the_disk() {
        let _alone = MEMORY.blocking_lock();
        let dir = tempfile::tempdir().unwrap();
        file::write_soon(&dir.path().join("file"), b"", Access::private()).unwrap();
        let collector = Collector::new(usize::MAX, dir.path().join("file/runs"));
        let mut rest = Charge::default();
        while rest.grow(1 << 20) {}
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let collected = runtime.block_on(async {
            for _ in 0..100 {
                collector.take(Channel::Stdout, &mut draft(&vec![b'x'; 500_000])).await;
            }
            collector.finish().await
        });
        let Collected::Large(printed) = collected else { panic!("fifty megabytes are large") };
        assert!(printed.lost().is_some_and(|error| error.to_string().contains("file")), "{printed:?}");
        // Less than what was left and what other tests have given back meanwhile.
        let (told, length) = (printed.marks().0, printed.stdout.excerpt.length());
        assert!(told.truncated && length < 8 << 20, "{length}");
    }
}
