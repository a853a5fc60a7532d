//! What is wrong in a configuration file, and where: `path:line:column: message`, the line, a caret, a way out.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// So many diagnostics of one kind are kept; the rest is counted. A file of a million broken lines must not become
/// a gigabyte of text.
const KEPT: usize = 200;
/// Columns of a line that are shown; a longer line is cut around the place.
const SHOWN: usize = 120;
/// Columns shown before the place when the line is cut.
const LEAD: usize = 40;

/// One thing wrong (or doubtful) in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    path: Arc<Path>,
    spot: Option<Box<Spot>>,
    message: String,
    help: Option<String>,
    warning: bool,
    key: Option<&'static str>,
}

/// A place within a file: everything of the line that will be shown, so that the text itself need not be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spot {
    line: usize,
    column: usize,
    excerpt: String,
    indent: usize,
    width: usize,
}

impl Diagnostic {
    /// Something that concerns the file and no line of it, such as a missing key.
    pub(super) fn whole_file(path: &Arc<Path>, message: impl Into<String>) -> Self {
        Self { path: Arc::clone(path), spot: None, message: message.into(), help: None, warning: false, key: None }
    }

    /// Something at the bytes `span` of the line with this number (from 1) and text.
    pub(super) fn at_line(
        path: &Arc<Path>,
        (number, line): (usize, &str),
        span: Range<usize>,
        message: impl Into<String>,
    ) -> Self {
        let spot = Some(Box::new(Spot::new(number, line, span)));
        Self { spot, ..Self::whole_file(path, message) }
    }

    /// Adds the line that says what to do.
    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same finding as a warning, which does not refuse the file.
    #[must_use]
    pub(super) fn into_warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// The same finding as a warning: the line counts as if it were not there.
    #[must_use]
    pub(super) fn skipped(mut self) -> Self {
        self.message.push_str(": the line is skipped");
        self.into_warning()
    }

    /// The same finding about the value of `key` as a warning: this takes its place.
    #[must_use]
    pub(super) fn replaced(mut self, key: &'static str, by: &str) -> Self {
        self.message = format!("{}: {by}", self.message);
        self.key = Some(key);
        self.into_warning()
    }

    /// The key whose value something else took the place of.
    #[must_use]
    pub const fn key(&self) -> Option<&'static str> {
        self.key
    }

    /// The same place with something else to say about it.
    #[must_use]
    pub(super) fn instead(&self, message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, ..self.clone() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, from 1; none where the whole file is meant.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.spot.as_ref().map(|spot| spot.line)
    }

    /// The column in characters, from 1; none where the whole file is meant.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.spot.as_ref().map(|spot| spot.column)
    }

    /// What is wrong, without its place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// `path:line:column: message` on one line, for a log.
    #[must_use]
    pub fn summary(&self) -> String {
        let path = shown(&self.path.to_string_lossy());
        let word = if self.warning { "warning: " } else { "" };
        match &self.spot {
            Some(spot) => format!("{path}:{}:{}: {word}{}", spot.line, spot.column, self.message),
            None => format!("{path}: {word}{}", self.message),
        }
    }

    fn order(&self) -> (usize, usize) {
        self.spot.as_ref().map_or((0, 0), |spot| (spot.line, spot.column))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        if let Some(spot) = &self.spot {
            let (indent, carets) = (" ".repeat(spot.indent), "^".repeat(spot.width));
            write!(f, "\n    {}\n    {indent}{carets}", spot.excerpt)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

impl Spot {
    fn new(line: usize, text: &str, span: Range<usize>) -> Self {
        let column = text.char_indices().take_while(|(at, _)| *at < span.start).count();
        let length = text.get(span.clone()).map_or(1, |marked| marked.chars().count().max(1));
        let total = text.chars().count();
        let first = if total > SHOWN { column.saturating_sub(LEAD) } else { 0 };
        let mut spot = Self { line, column: column + 1, excerpt: String::new(), indent: 0, width: 0 };
        if first > 0 {
            spot.excerpt.push_str("...");
            spot.indent = 3;
        }
        for (at, character) in text.chars().enumerate().skip(first).take(SHOWN) {
            let width = spot.push(character);
            if at < column {
                spot.indent += width;
            } else if at < column + length {
                spot.width += width;
            }
        }
        if total > first + SHOWN {
            spot.excerpt.push_str("...");
        }
        spot.width = spot.width.max(1);
        spot
    }

    /// Appends one character as a terminal may show it, and returns the columns it takes.
    fn push(&mut self, character: char) -> usize {
        if character == '\t' {
            self.excerpt.push_str("    ");
            return 4;
        }
        let safe = if hidden(character) { char::REPLACEMENT_CHARACTER } else { character };
        self.excerpt.push(safe);
        columns(safe)
    }
}

/// Characters that a terminal would obey or hide instead of showing them.
fn hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Columns of a terminal that a character takes: none for combining marks, two for the wide blocks (Unicode's East
/// Asian Width, annex 11, by block). An odd character costs a caret that is one column off, nothing more.
const fn columns(character: char) -> usize {
    match character {
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1f64f}'
        | '\u{1f900}'..='\u{1f9ff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// A piece of a file as a message may quote it: nothing a terminal obeys, and not endless.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out: String = text.chars().take(LONGEST).map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}

/// Diagnostics in file order, at most [`KEPT`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct List {
    kept: Vec<Diagnostic>,
    more: usize,
}

impl List {
    fn push(&mut self, diagnostic: Diagnostic) {
        if self.kept.len() < KEPT { self.kept.push(diagnostic) } else { self.more += 1 }
    }

    fn append(&mut self, other: Self) {
        self.more += other.more;
        other.kept.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.kept.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{diagnostic}")?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more", self.more)?;
        }
        Ok(())
    }
}

/// Everything that refuses a configuration. Never empty. `Display` shows all of it in file order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfErrors(List);

impl ConfErrors {
    /// The errors, files in the order they were given, lines from the first.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.kept.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.kept.len() + self.0.more
    }
}

impl From<Diagnostic> for ConfErrors {
    fn from(one: Diagnostic) -> Self {
        Self(List { kept: vec![one], more: 0 })
    }
}

/// What is doubtful in a configuration that was accepted. May be empty. `Display` shows all of it in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(List);

impl Warnings {
    /// The warnings, files in the order they were given, lines from the first.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.kept.iter()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.kept.is_empty()
    }
}

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The findings of one or more files while they are being read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: List,
    warnings: List,
}

impl Findings {
    /// Notes a finding, as the error or warning that it is.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.warning { self.warnings.push(diagnostic) } else { self.errors.push(diagnostic) }
    }

    /// Notes findings.
    pub(super) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }

    /// Puts what was found so far (in one file) in the order of its lines.
    #[must_use]
    pub(super) fn sorted(mut self) -> Self {
        self.errors.kept.sort_by_key(Diagnostic::order);
        self.warnings.kept.sort_by_key(Diagnostic::order);
        self
    }

    /// Adds the findings of the next file.
    #[must_use]
    pub(super) fn then(mut self, next: Self) -> Self {
        self.errors.append(next.errors);
        self.warnings.append(next.warnings);
        self
    }

    /// `value` with the warnings, if nothing refuses it.
    pub(super) fn judge<T>(self, value: T) -> Result<(T, Warnings), ConfErrors> {
        if self.errors.kept.is_empty() { Ok((value, Warnings(self.warnings))) } else { Err(ConfErrors(self.errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str, span: Range<usize>) -> Diagnostic {
        Diagnostic::at_line(&Arc::from(Path::new("/etc/a.conf")), (7, line), span, "it is wrong")
    }

    #[test]
    fn an_error_shows_its_place_its_line_and_a_caret_under_the_span() {
        let error = at("prot = 7443", 0..4).help("did you mean 'port'?");
        assert_eq!(
            error.to_string(),
            "/etc/a.conf:7:1: it is wrong\n    prot = 7443\n    ^^^^\nhelp: did you mean 'port'?"
        );
        assert_eq!(error.into_warning().summary(), "/etc/a.conf:7:1: warning: it is wrong");
    }

    #[test]
    fn tabs_and_wide_characters_move_the_caret_but_not_the_column_count() {
        let error = at("\tk = v", 1..2);
        assert_eq!(error.to_string(), "/etc/a.conf:7:2: it is wrong\n        k = v\n        ^");
        let error = at("é日 = x", 8..9);
        assert_eq!(error.column(), Some(6));
        assert_eq!(error.to_string(), "/etc/a.conf:7:6: it is wrong\n    é日 = x\n          ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let text = at(&line, 500..504).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].len() < 140, "{text}");
        let under = lines[2].find('^').unwrap();
        assert_eq!(&lines[1][under..under + 4], "HERE");
    }

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let text = at("k = \u{1b}[31mred\u{202e}", 0..1).to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
        assert_eq!(shown("a\nb"), "a\u{fffd}b");
        assert_eq!(shown(&"x".repeat(200)).len(), 83);
    }

    #[test]
    fn a_flood_of_errors_is_counted_instead_of_kept() {
        let mut findings = Findings::default();
        (0..KEPT + 5).for_each(|_| findings.push(at("x", 0..1)));
        let errors = findings.judge(()).unwrap_err();
        assert_eq!(errors.count(), KEPT + 5);
        assert!(errors.to_string().ends_with("and 5 more"));
    }
}
