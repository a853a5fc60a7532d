//! From a job that has ended to its final record.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Adviser, JobRecord, JobStatus, Jobs, Key, MODE, Part, StoreError, TAIL};
use crate::sys::file::{self, Access, FileError};
use crate::wire::limits;
use crate::wire::outcome::{Noted, Outcome};
use crate::wire::run::Output;
use crate::wire::spelt::{Exact, Text};
use crate::wire::stamp;
use crate::wire::stream::{Channel, whole_characters};

/// So many bytes of an output are read at a time.
const PIECE: usize = 16 * 1024;

/// What a job keeps of its outputs.
#[derive(Debug)]
pub enum Kept {
    /// The record as it stands on file, which no later one changes. It holds them.
    OnRecord(File),
    /// There was no room for the record yet: so many bytes of what is on file of standard output, and of standard error.
    Beside([u64; 2]),
}

/// A job that was looked at under the store's lock.
pub(super) struct Settled {
    pub(super) record: JobRecord,
    /// It has ended, which could not be put on record: what its monitor noted, and as [`Kept::Beside`].
    pub(super) unrecorded: Option<(Option<Noted>, [u64; 2])>,
}

impl Jobs {
    /// A job's record, without output. If the job has ended since somebody last asked, that is on record now, if there is room
    /// for it. `None` where there is no such job.
    pub fn look(&self, key: &Key, now: SystemTime) -> Result<Option<JobRecord>, StoreError> {
        Ok(self.look_open(key, now)?.map(|(record, _)| record))
    }

    /// The same, and what it keeps of the outputs.
    pub fn look_open(&self, key: &Key, now: SystemTime) -> Result<Option<(JobRecord, Kept)>, StoreError> {
        let on_file = |found: Option<(JobRecord, File)>| found.map(|(record, file)| (record, Kept::OnRecord(file)));
        let found = self.read_open(key)?;
        if found.as_ref().is_none_or(|(record, _)| record.status != JobStatus::Running) || self.is_alive(key)? {
            return Ok(on_file(found));
        }
        let store = self.lock()?;
        let settled = self.settle(key, now)?;
        drop(store);
        match settled {
            Some(Settled { record, unrecorded: Some((_, lengths)) }) => Ok(Some((record, Kept::Beside(lengths)))),
            _ => self.read_open(key).map(on_file),
        }
    }

    /// As [`Jobs::look`], under the store's lock.
    pub(super) fn settle(&self, key: &Key, now: SystemTime) -> Result<Option<Settled>, StoreError> {
        let Some(record) = self.read(key)? else { return Ok(None) };
        if record.status != JobStatus::Running || self.is_alive(key)? || self.is_alive_original(key, &record)? {
            return Ok(Some(Settled { record, unrecorded: None }));
        }
        let noted = self.outcome(key)?;
        let finished = match (&noted, file::facts(&self.path(key, Part::Status))?) {
            (Some(_), Some(facts)) => facts.modified,
            _ => now,
        };
        // Its monitor has cut both then, wherever the limit fell; or its disk has.
        let cut = noted
            .as_ref()
            .is_some_and(|noted| noted.short_of_room || matches!(noted.outcome, Outcome::OutputLimit { .. }));
        let (stdout, stderr) = (self.head(key, Channel::Stdout, cut)?, self.head(key, Channel::Stderr, cut)?);
        let record = record
            .ended(noted.as_ref().map(|noted| &noted.outcome), utc(finished), stdout.mark(), stderr.mark())
            .without_output();
        let record = JobRecord { hint: self.advice(key, &record)?, ..record };
        let lengths = [stdout.length, stderr.length];
        let said = noted.as_ref().and_then(|noted| noted.outcome.on_stderr());
        let stderr = Head { added: said.unwrap_or_default().into_bytes(), ..stderr };
        self.mark_end(key, finished);
        if let Err(error) = self.write_end(key, &record, [stdout, stderr]) {
            if let Some(witness) = &self.witness {
                (witness.unrecorded)(&record, &error);
            }
            return Ok(Some(Settled { record, unrecorded: Some((noted, lengths)) }));
        }
        self.remove_unfinished(key)?;
        self.witness(&record, noted.as_ref());
        Ok(Some(Settled { record, unrecorded: None }))
    }

    /// Tells of a job's end.
    pub(super) fn witness(&self, record: &JobRecord, noted: Option<&Noted>) {
        if let Some(witness) = &self.witness {
            (witness.ended)(record, noted);
        }
    }

    fn write_end(&self, key: &Key, record: &JobRecord, printed: [Head; 2]) -> Result<(), StoreError> {
        if record.status == JobStatus::Lost {
            file::write_atomic(&self.path(key, Part::Lost), b"", Access::mode(MODE))?;
        }
        self.write_with(key, record.clone(), printed)
    }

    /// When a job ended is the time of its output on file from now on: that of the record is when it was settled.
    fn mark_end(&self, key: &Key, finished: SystemTime) {
        if let Ok(Some(file)) = self.output(key, Channel::Stdout) {
            // Unmarked, it ended when it last printed, which is not much of a lie.
            drop(file.set_modified(finished));
        }
    }

    /// What the monitor wrote, if it came to that. A line that is not whole is none.
    pub(super) fn outcome(&self, key: &Key) -> Result<Option<Noted>, StoreError> {
        match file::read_bounded(&self.path(key, Part::Status), limits::REPORT) {
            Ok(bytes) => {
                // Behind it is what was reserved and not needed.
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let line = end.and_then(|end| bytes.get(..end));
                Ok(line.and_then(|line| serde_json::from_slice(line).ok()))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What may be advised about a job that has ended.
    fn advice(&self, key: &Key, record: &JobRecord) -> Result<Option<String>, StoreError> {
        let Some(Adviser(advise)) = &self.adviser else { return Ok(None) };
        // Also -1 is no failure of the script: nobody knows how it ended.
        if record.exit.is_none_or(|exit| exit <= 0) {
            return Ok(None);
        }
        let Some(file) = self.output(key, Channel::Stderr)? else { return Ok(None) };
        let fail = |source| FileError::new(&self.path(key, Part::Stderr), "read", source);
        let mut bytes = vec![0; TAIL];
        let size = file.metadata().map_err(fail)?.len();
        let from = size.saturating_sub(u64::try_from(TAIL).unwrap_or(u64::MAX));
        let filled = file.read_at(&mut bytes, from).map_err(fail)?;
        bytes.truncate(filled);
        Ok(advise(&record.script, &bytes))
    }

    /// The beginning of an output, as much of it as a record keeps. What was `cut` may end in the middle of a character.
    fn head(&self, key: &Key, channel: Channel, cut: bool) -> Result<Head, StoreError> {
        let Some(file) = self.output(key, channel)? else { return Ok(Head::none(channel)) };
        let fail = |source| FileError::new(&self.path(key, Part::of(channel)), "read", source);
        let size = file.metadata().map_err(fail)?.len();
        let head = Head {
            file: Some(file),
            length: size.min(self.most),
            truncated: size > self.most || cut,
            ..Head::none(channel)
        };
        Ok(if head.truncated { head.whole_characters().map_err(fail)? } else { head })
    }

    /// Writes a record in words of the original, with the outputs before what it says else: neither has to be in memory.
    fn write_with(&self, key: &Key, record: JobRecord, [stdout, stderr]: [Head; 2]) -> Result<(), StoreError> {
        let path = self.path(key, Part::Record);
        let (record, stderr) = if record.status == JobStatus::Lost {
            let whole = stderr.ends_a_line().map_err(|source| FileError::new(&path, "read output for", source))?;
            let added = record.added(whole);
            (record.saying_done(added.clone()), Head { added: added.into_bytes(), ..stderr })
        } else {
            (record, stderr)
        };
        let printed = [stdout, stderr];
        let fields =
            serde_json::to_vec(&record).map_err(|source| StoreError::Malformed { path: path.clone(), source })?;
        let fill = |file: &mut File| {
            let mut out = BufWriter::with_capacity(PIECE, file);
            let mut begin: &[u8] = b"{";
            for head in printed {
                out.write_all(begin)?;
                head.write(&mut out)?;
                begin = b",";
            }
            out.write_all(begin)?;
            out.write_all(fields.strip_prefix(b"{").unwrap_or(&fields))?;
            out.flush()
        };
        Ok(file::write_atomic_by(&path, Access::mode(MODE), fill)?)
    }
}

/// What a record keeps of an output.
struct Head {
    channel: Channel,
    file: Option<File>,
    length: u64,
    truncated: bool,
    /// What comes behind it that the script has not printed.
    added: Vec<u8>,
}

impl Head {
    const fn none(channel: Channel) -> Self {
        Self { channel, file: None, length: 0, truncated: false, added: Vec::new() }
    }

    /// What is to be said of it beside its bytes.
    fn mark(&self) -> Output {
        Output { truncated: self.truncated, ..Output::default() }
    }

    /// The same without a character that was cut in its middle.
    fn whole_characters(self) -> io::Result<Self> {
        let mut end = Vec::new();
        let from = self.length.saturating_sub(3);
        self.pieces(from, |bytes| {
            end.extend_from_slice(bytes);
            Ok(())
        })?;
        let whole = u64::try_from(whole_characters(&end)).unwrap_or(u64::MAX);
        Ok(Self { length: self.length.min(from + whole), ..self })
    }

    /// Its members of a JSON object: the text, and the exact bytes where that had to replace some.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let name = self.channel.as_str();
        let (mut text, mut exact, mut spelt) = (Text::default(), Exact::default(), Vec::new());
        write!(out, "\"{name}\":\"")?;
        self.everything(|bytes| {
            text.add(bytes, &mut spelt);
            out.write_all(&spelt)?;
            spelt.clear();
            Ok(())
        })?;
        text.end(&mut spelt);
        out.write_all(&spelt)?;
        if !text.is_exact() {
            write!(out, "\",\"{name}_base64\":\"")?;
            spelt.clear();
            self.everything(|bytes| {
                exact.add(bytes, &mut spelt);
                out.write_all(&spelt)?;
                spelt.clear();
                Ok(())
            })?;
            exact.end(&mut spelt);
            out.write_all(&spelt)?;
        }
        out.write_all(b"\"")
    }

    /// Whether it has no last line that is half one.
    fn ends_a_line(&self) -> io::Result<bool> {
        let mut last = b'\n';
        self.pieces(self.length.saturating_sub(1), |bytes| {
            last = bytes.last().copied().unwrap_or(last);
            Ok(())
        })?;
        Ok(last == b'\n')
    }

    /// All of it and what was added.
    fn everything(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        self.pieces(0, &mut each)?;
        if self.added.is_empty() { Ok(()) } else { each(&self.added) }
    }

    /// Its bytes from a place on, a piece at a time.
    fn pieces(&self, from: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let (mut at, mut piece) = (from, vec![0; PIECE]);
        while at < self.length {
            let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
            let most = left.min(PIECE);
            let count = match file.read_at(piece.get_mut(..most).unwrap_or_default(), at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            if count == 0 {
                return Ok(());
            }
            each(piece.get(..count).unwrap_or_default())?;
            at += u64::try_from(count).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// As a record spells it.
pub(super) fn utc(at: SystemTime) -> String {
    stamp::utc(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}
