//! One section's settings as typed values. Each key is asked for by name; what nobody asked for is unknown.

use std::collections::BTreeMap;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Findings};
use super::lexer::{Setting, Span};
use super::nearest::nearest;
use super::value::{self, Complaint};

/// Settings of earlier releases that do nothing any more, and what took their place.
const REMOVED: [(&str, &str); 4] = [
    ("sandbox", "confinement is what a [profile NAME] section in agent.conf orders"),
    ("writable_paths", "'writable' in a [profile NAME] section of agent.conf took its place"),
    ("dispatcher_serial_path", "'trusted_dispatchers_path' took its place"),
    ("dispatcher_cn", "dispatchers are known by the serials of their certificates"),
];

/// A setting with the line it came from, for errors that show only later (a file that cannot be read, an account
/// that does not exist).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed<T> {
    value: T,
    line: Option<usize>,
}

impl<T> Placed<T> {
    /// A value that stands in no file: a default.
    pub(super) const fn default_of(value: T) -> Self {
        Self { value, line: None }
    }

    /// Another value that counts in place of this one.
    #[must_use]
    pub fn instead(self, value: T) -> Self {
        Self { value, ..self }
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The line it was written on, from 1; none for a default.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// Where `file` sets this: `path:line`, or `path (default)`.
    #[must_use]
    pub fn place(&self, file: &Path) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", file.display()),
            None => format!("{} (default)", file.display()),
        }
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// On which line each key of one section stands, for whoever says later which of them decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// The line of `key`, from 1; none where it is not set.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<usize> {
        self.0.get(key).copied()
    }
}

/// What an empty value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// An error, as in `agent.conf`.
    Refused,
    /// As if the line were not there, with a warning, as in `ctrl-exec.conf`.
    Absent,
}

/// Reads one section. Findings go where [`Reader::new`] was told.
///
/// **Invariant:** a value that could not be read has left an error behind, so whatever stands in for it never
/// reaches a caller: settings with errors are dropped as a whole.
pub(super) struct Reader<'s, 'f> {
    path: Arc<Path>,
    prefix: String,
    findings: &'f mut Findings,
    slots: BTreeMap<&'s str, Slot<'s>>,
    asked: Vec<&'static str>,
}

/// A piece of a value: its bytes, and what they mean.
pub(super) type Cut<T> = (Range<usize>, Result<T, Complaint>);

/// A key that is set. No value: what is wrong with it has been said.
struct Slot<'s> {
    key: Span<'s>,
    value: Option<Span<'s>>,
}

impl<'s, 'f> Reader<'s, 'f> {
    /// A reader of `settings`; every message about them begins with `prefix`.
    pub(super) fn new(
        path: &Arc<Path>,
        prefix: impl Into<String>,
        settings: &[Setting<'s>],
        empty: Empty,
        findings: &'f mut Findings,
    ) -> Self {
        let (path, prefix) = (Arc::clone(path), prefix.into());
        let mut reader = Self { path, prefix, findings, slots: BTreeMap::new(), asked: Vec::new() };
        for setting in settings {
            reader.add(setting, empty);
        }
        reader
    }

    fn add(&mut self, setting: &Setting<'s>, empty: Empty) {
        let mut value = Some(setting.value);
        if let Some(comment) = setting.value.comment() {
            self.findings.push(comment.inline_comment());
            let kept = setting.value.sub(0, setting.value.len() - comment.len()).trimmed();
            value = Some(kept).filter(|kept| !kept.is_empty());
        } else if setting.value.is_empty() {
            let message = format!("{}'{}' has no value", self.prefix, setting.key.text());
            let finding = setting.equals.error(message);
            if empty == Empty::Absent {
                self.findings.push(finding.help("the line counts as absent; remove it").into_warning());
                return;
            }
            self.findings.push(finding.help("write a value behind '=', or remove the line"));
            value = None;
        }
        let slot = Slot { key: setting.key, value };
        if let Some(earlier) = self.slots.insert(setting.key.text(), slot) {
            self.findings.push(duplicate(&setting.key, &earlier.key));
        }
    }

    /// The value of `key`, if it is set and `parse` takes it.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<Placed<T>> {
        let span = self.take(key)?;
        let value = self.judge(key, span, parse(span.text()))?;
        Some(Placed { value, line: Some(span.number()) })
    }

    /// As [`Reader::get`], with a default.
    pub(super) fn get_or<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
        default: T,
    ) -> Placed<T> {
        self.get(key, parse).unwrap_or(Placed::default_of(default))
    }

    /// As [`Reader::get_or`], for a key whose values the original did not judge: what takes the place of one that cannot be
    /// used is said, in a warning, and is no reason not to serve.
    pub(super) fn lenient<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
        default: T,
        instead: impl FnOnce(&str) -> (T, &'static str),
    ) -> T {
        let Some(span) = self.take(key) else { return default };
        parse(span.text()).unwrap_or_else(|complaint| {
            let (value, words) = instead(span.text());
            self.findings.push(complaint.at(&self.prefix, key, &span).replaced(key, words));
            value
        })
    }

    /// As [`Reader::get`], for a key that must be set; the error shows `example` as its value.
    pub(super) fn required<T: Default>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
        example: &str,
    ) -> Placed<T> {
        if !self.slots.contains_key(key) {
            let message = format!("{}Missing required config key '{key}'", self.prefix);
            let error = Diagnostic::whole_file(&self.path, message);
            self.findings.push(error.help(format!("add the line '{key} = {example}'")));
        }
        self.get_or(key, parse, T::default())
    }

    /// The value of `key` as a path. A relative one is taken as it is, with a warning.
    pub(super) fn path(&mut self, key: &'static str) -> Option<Placed<PathBuf>> {
        self.warn_if_relative(key);
        self.get(key, value::path)
    }

    /// As [`Reader::path`], with a default.
    pub(super) fn path_or(&mut self, key: &'static str, default: PathBuf) -> Placed<PathBuf> {
        self.path(key).unwrap_or(Placed::default_of(default))
    }

    /// As [`Reader::path`], for a key that must be set.
    pub(super) fn required_path(&mut self, key: &'static str, example: &Path) -> Placed<PathBuf> {
        self.warn_if_relative(key);
        self.required(key, value::path, &example.display().to_string())
    }

    /// The pieces of `key`'s value between `separators`, each read by `parse`; every bad piece is an error of its
    /// own, and so is a value without any piece.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        separators: &'static [char],
        parse: impl Fn(&str) -> Result<T, Complaint>,
    ) -> Option<Placed<Vec<T>>> {
        self.pieces(key, separators, parse, |error| error)
    }

    /// As [`Reader::list`], for a key whose pieces the original did not judge: a bad one is left out, and a warning says in
    /// `words` what that means.
    pub(super) fn some_of<T>(
        &mut self,
        key: &'static str,
        separators: &'static [char],
        parse: impl Fn(&str) -> Result<T, Complaint>,
        words: &str,
    ) -> Option<Placed<Vec<T>>> {
        self.pieces(key, separators, parse, |error| error.replaced(key, words))
    }

    fn pieces<T>(
        &mut self,
        key: &'static str,
        separators: &'static [char],
        parse: impl Fn(&str) -> Result<T, Complaint>,
        judge: impl Fn(Diagnostic) -> Diagnostic,
    ) -> Option<Placed<Vec<T>>> {
        let span = self.take(key)?;
        let mut value = Vec::new();
        for piece in span.pieces(separators) {
            match parse(piece.text()) {
                Ok(read) => value.push(read),
                Err(complaint) => self.findings.push(judge(complaint.at(&self.prefix, key, &piece))),
            }
        }
        if span.pieces(separators).next().is_none() {
            self.findings.push(span.error(format!("{}{key} names nothing", self.prefix)));
        }
        Some(Placed { value, line: Some(span.number()) })
    }

    /// Where the pieces of `key`'s value stand, for what is found wrong with them only later. The key itself is asked
    /// for elsewhere.
    pub(super) fn places(&self, key: &str, separators: &'static [char]) -> Vec<Diagnostic> {
        let value = self.slots.get(key).and_then(|slot| slot.value);
        value.into_iter().flat_map(|span| span.pieces(separators)).map(|piece| piece.error("")).collect()
    }

    /// The pieces that `cut` finds in `key`'s value, for lists that separators alone do not cut; every piece is judged
    /// at its own place in the value. None where the key is not set.
    pub(super) fn cut<T>(&mut self, key: &'static str, cut: impl FnOnce(&str) -> Vec<Cut<T>>) -> Vec<T> {
        let Some(span) = self.take(key) else { return Vec::new() };
        let judged = cut(span.text()).into_iter();
        judged.filter_map(|(range, outcome)| self.judge(key, span.sub(range.start, range.end), outcome)).collect()
    }

    /// On which line each key of the section stands.
    pub(super) fn lines(&self) -> Lines {
        Lines(self.slots.iter().map(|(key, slot)| ((*key).to_owned(), slot.key.number())).collect())
    }

    /// Whether `key` is set, readable or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.slots.contains_key(key)
    }

    /// Adds a finding about the setting `key`, if it is set.
    pub(super) fn note(&mut self, key: &str, make: impl FnOnce(&Span<'s>) -> Diagnostic) {
        if let Some(slot) = self.slots.get(key) {
            self.findings.push(make(&slot.key));
        }
    }

    /// Reports what was never asked for. `elsewhere` may say where a key belongs instead.
    /// Returns the keys that this section knows.
    pub(super) fn finish(self, elsewhere: impl Fn(&str) -> Option<String>) -> Vec<&'static str> {
        for (name, slot) in &self.slots {
            if self.asked.iter().any(|asked| asked == name) {
                continue;
            }
            let removed = REMOVED.iter().find(|(key, _)| key == name).filter(|_| self.prefix.is_empty());
            self.findings.push(match removed {
                Some((_, instead)) => removed_key(&slot.key, instead),
                None => unknown_key(&self.prefix, &slot.key, &self.asked, elsewhere(name)),
            });
        }
        self.asked
    }

    fn take(&mut self, key: &'static str) -> Option<Span<'s>> {
        self.asked.push(key);
        self.slots.get(key)?.value
    }

    fn judge<T>(&mut self, key: &str, span: Span<'s>, outcome: Result<T, Complaint>) -> Option<T> {
        outcome.map_err(|complaint| self.findings.push(complaint.at(&self.prefix, key, &span))).ok()
    }

    fn warn_if_relative(&mut self, key: &str) {
        let Some(span) = self.slots.get(key).and_then(|slot| slot.value) else { return };
        if !span.text().starts_with('/') {
            let message = format!("{}{key} is a relative path", self.prefix);
            let help = "it is taken from the directory that the program is started in; write it from '/'";
            self.findings.push(span.error(message).help(help).into_warning());
        }
    }
}

/// A key set twice: the later line wins.
pub(super) fn duplicate(later: &Span<'_>, earlier: &Span<'_>) -> Diagnostic {
    let (first, last) = (earlier.number(), later.number());
    let message = format!("'{}' is set twice: line {last} replaces line {first}", later.text());
    later.error(message).help("remove one of the two lines").into_warning()
}

fn removed_key(key: &Span<'_>, instead: &str) -> Diagnostic {
    key.error(format!("'{}' does nothing any more", key.text()))
        .help(format!("remove the line; {instead}"))
        .into_warning()
}

fn unknown_key(prefix: &str, key: &Span<'_>, known: &[&'static str], elsewhere: Option<String>) -> Diagnostic {
    let error = key.error(format!("{prefix}unknown key '{}'", super::diagnostic::shown(key.text())));
    let near = nearest(key.text(), known.iter().copied()).map(|near| format!("did you mean '{near}'?"));
    match elsewhere.or(near) {
        Some(help) => error.help(help),
        None => error.help(format!("known here: {}", known.join(", "))),
    }
}
