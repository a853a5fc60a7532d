//! Lines to settings and section headers, the same for all three files.
//!
//! A line is blank, a comment (`#` first), a header (`[name]`) or a setting (`key = value`); blanks around any of
//! its parts mean nothing. There is no quoting, no continuation and no comment behind a value.

use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Findings, shown};
use super::source::{NOT_UTF8, SAVE, Source};

/// The longest line, in bytes.
const MAX_LINE: usize = 64 * 1024;
const BLANKS: [char; 2] = [' ', '\t'];
/// So many lines are named besides the first, where one finding is about many.
const NAMED: usize = 10;

/// A piece of one line, which knows where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'s> {
    path: &'s Arc<Path>,
    number: usize,
    line: &'s str,
    start: usize,
    end: usize,
}

/// One `key = value` line. The value is trimmed and may be empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting<'s> {
    pub(super) key: Span<'s>,
    pub(super) equals: Span<'s>,
    pub(super) value: Span<'s>,
    pub(super) indented: bool,
}

/// The settings below one header. The first section of a file has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Section<'s> {
    /// What stands between the brackets, trimmed.
    pub(super) header: Option<Span<'s>>,
    pub(super) settings: Vec<Setting<'s>>,
}

enum Item<'s> {
    Nothing,
    Header(Span<'s>),
    Setting(Setting<'s>),
}

/// The file's path (for findings that have no line) and its sections; the first one is what stands above all
/// headers and always exists.
pub(super) fn sections<'s>(source: &'s Source, path: &'s Arc<Path>, findings: &mut Findings) -> Vec<Section<'s>> {
    cut(source, path, findings, |error| error)
}

/// The same of a file in which a line that cannot be read is skipped with a warning.
pub(super) fn sections_that_can_be_read<'s>(
    source: &'s Source,
    path: &'s Arc<Path>,
    findings: &mut Findings,
) -> Vec<Section<'s>> {
    cut(source, path, findings, Diagnostic::skipped)
}

fn cut<'s>(
    source: &'s Source,
    path: &'s Arc<Path>,
    findings: &mut Findings,
    judge: impl Fn(Diagnostic) -> Diagnostic,
) -> Vec<Section<'s>> {
    let (mut done, mut odd) = (Vec::new(), Vec::new());
    let mut current = Section::default();
    let text = source.text().unwrap_or_else(|why| {
        findings.push(why.clone());
        ""
    });
    for (index, raw) in text.split('\n').enumerate() {
        let line = raw.strip_suffix('\r').unwrap_or(raw);
        let whole = Span { path, number: index + 1, line, start: 0, end: line.len() };
        let item = item(whole);
        if let Some(at) = source.odd(whole.number) {
            let place = whole.sub(at, at + char::REPLACEMENT_CHARACTER.len_utf8());
            if !is_free_text(&item, &current) {
                findings.push(place.error(NOT_UTF8).help(SAVE));
                continue;
            }
            odd.push(place);
        }
        match item {
            Ok(Item::Nothing) => {}
            Ok(Item::Setting(setting)) => current.settings.push(setting),
            Ok(Item::Header(header)) => {
                if let Some(comment) = header.after_bracket().comment() {
                    findings.push(comment.inline_comment());
                }
                let next = Section { header: Some(header), settings: Vec::new() };
                done.push(std::mem::replace(&mut current, next));
            }
            Err(error) => findings.push(judge(error)),
        }
    }
    done.push(current);
    findings.extend(replaced(&odd));
    done
}

/// Whether nothing but people reads what stands there: a comment, or the value of a tag.
fn is_free_text(item: &Result<Item<'_>, Diagnostic>, section: &Section<'_>) -> bool {
    match item {
        Ok(Item::Nothing) => true,
        Ok(Item::Setting(_)) => section.header.is_some_and(|header| header.text() == "tags"),
        _ => false,
    }
}

/// One warning for all lines of free text that are not UTF-8.
fn replaced(odd: &[Span<'_>]) -> Option<Diagnostic> {
    let (first, more) = odd.split_first()?;
    let named: Vec<String> = more.iter().take(NAMED).map(|place| place.number.to_string()).collect();
    let rest = if more.len() > NAMED { ", and more" } else { "" };
    let others = if named.is_empty() { String::new() } else { format!(" (also on line {}{rest})", named.join(", ")) };
    let warning = first.error(format!("{NOT_UTF8}{others}: bytes that are not are read as U+FFFD"));
    Some(warning.help(SAVE).into_warning())
}

fn item(line: Span<'_>) -> Result<Item<'_>, Diagnostic> {
    check_characters(line)?;
    let content = line.trimmed();
    match content.text().chars().next() {
        None | Some('#') => Ok(Item::Nothing),
        Some('[') => header(content).map(Item::Header),
        Some(_) => setting(content).map(Item::Setting),
    }
}

fn check_characters(line: Span<'_>) -> Result<(), Diagnostic> {
    if line.line.len() > MAX_LINE {
        return Err(line.sub(0, 1).error(format!("the line is longer than {MAX_LINE} bytes")));
    }
    let Some((at, odd)) = line.line.char_indices().find(|(_, c)| c.is_control() && *c != '\t') else { return Ok(()) };
    let message =
        if odd == '\0' { "a NUL byte".to_owned() } else { format!("a control character (U+{:04X})", u32::from(odd)) };
    Err(line.sub(at, at + odd.len_utf8()).error(message).help("remove it; this is a text file"))
}

fn header(content: Span<'_>) -> Result<Span<'_>, Diagnostic> {
    let close = content.text().find(']').ok_or_else(|| {
        content.error("Malformed config line: the section header is not closed").help("end it with ']'")
    })?;
    let inner = content.sub(1, close).trimmed();
    let rest = content.sub(close + 1, content.len()).trimmed();
    if rest.is_empty() || rest.comment().is_some() {
        return Ok(inner);
    }
    Err(rest.error("Malformed config line: text after a section header").help("remove it"))
}

fn setting(content: Span<'_>) -> Result<Setting<'_>, Diagnostic> {
    let Some(at) = content.text().find('=') else {
        let error = content.error(format!("Malformed config line: '{}' is no 'key = value'", shown(content.text())));
        return Err(error.help("write 'key = value', or begin the line with '#' to make it a comment"));
    };
    let key = content.sub(0, at).trimmed();
    let equals = content.sub(at, at + 1);
    if key.is_empty() {
        return Err(equals.error("Malformed config line: no key before '='"));
    }
    if !key.text().chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        let message = format!("Malformed config line: '{}' cannot be a key", shown(key.text()));
        return Err(key.error(message).help("a key has letters, digits, '_' and '-'"));
    }
    let value = content.sub(at + 1, content.len()).trimmed();
    Ok(Setting { key, equals, value, indented: content.start > 0 })
}

impl<'s> Span<'s> {
    pub(super) fn text(&self) -> &'s str {
        self.line.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) const fn number(&self) -> usize {
        self.number
    }

    pub(super) const fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The bytes `from..to` of this piece.
    pub(super) fn sub(&self, from: usize, to: usize) -> Self {
        let end = (self.start + to).min(self.end);
        Self { start: (self.start + from).min(end), end, ..*self }
    }

    pub(super) fn trimmed(&self) -> Self {
        let text = self.text();
        let from = text.len() - text.trim_start_matches(BLANKS).len();
        let to = text.trim_end_matches(BLANKS).len();
        self.sub(from, to.max(from))
    }

    /// The non-empty pieces between any of `separators`, trimmed.
    pub(super) fn pieces(self, separators: &'static [char]) -> impl Iterator<Item = Self> {
        let mut at = 0;
        self.text().split(separators).filter_map(move |piece| {
            let from = at;
            // Every separator in use is one byte long.
            at += piece.len() + 1;
            Some(self.sub(from, from + piece.len()).trimmed()).filter(|piece| !piece.is_empty())
        })
    }

    /// The first `#` here that a blank precedes, to the end: what another format would take for a comment.
    pub(super) fn comment(&self) -> Option<Self> {
        let blank_before = |at: usize| self.line.get(..at).is_some_and(|before| before.ends_with(BLANKS));
        let (at, _) = self.text().match_indices('#').find(|(at, _)| blank_before(self.start + at))?;
        Some(self.sub(at, self.len()))
    }

    /// What stands on the line behind this header's closing bracket.
    fn after_bracket(&self) -> Self {
        let from =
            self.line.get(self.end..).and_then(|rest| rest.find(']')).map_or(self.line.len(), |at| self.end + at + 1);
        Self { start: from, end: self.line.len(), ..*self }
    }

    /// The refusal of a comment that begins here.
    pub(super) fn inline_comment(&self) -> Diagnostic {
        self.sub(0, 1)
            .error("a comment behind a value is not possible: it would be part of the value")
            .help("remove the comment, or put it on a line of its own")
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at_line(self.path, (self.number, self.line), self.start..self.end, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and the pairs below it.
    type Plain = (String, Vec<(String, String)>);

    fn lex(text: &str) -> Result<Vec<Plain>, String> {
        let source = Source::new("f", text);
        let (path, mut findings) = (source.shared_path(), Findings::default());
        let sections = sections(&source, &path, &mut findings);
        let plain = |s: &Section<'_>| {
            let settings = s.settings.iter().map(|s| (s.key.text().to_owned(), s.value.text().to_owned()));
            (s.header.map(|h| h.text().to_owned()).unwrap_or_default(), settings.collect())
        };
        let all = sections.iter().map(plain).collect();
        findings.judge(all).map(|(all, _)| all).map_err(|errors| errors.to_string())
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn settings_headers_comments_and_blank_lines_are_told_apart() {
        let text = "# c\r\n\n  a =  b c \r\nurl = x=y\n\t# d\n[ profile  p ]\n-k-1=\nd=#x\n";
        let sections = lex(text).unwrap();
        assert_eq!(sections[0], (String::new(), vec![pair("a", "b c"), pair("url", "x=y")]));
        assert_eq!(sections[1], ("profile  p".to_owned(), vec![pair("-k-1", ""), pair("d", "#x")]));
        assert_eq!(lex("").unwrap().len(), 1);
    }

    #[test]
    fn every_malformed_line_is_reported_where_it_is_wrong() {
        let errors = lex("just words\nport: 7443\n = 1\na b = 1\n[tags\n[tags] x\nok = 1\n").unwrap_err();
        for place in ["f:1:1: ", "f:2:1: ", "f:3:2: ", "f:4:1: ", "f:5:1: ", "f:6:8: "] {
            assert!(errors.contains(&format!("{place}Malformed config line")), "{place}: {errors}");
        }
        assert!(!errors.contains("f:7"), "{errors}");
    }

    #[test]
    fn a_comment_behind_a_header_is_refused_at_its_sign() {
        let errors = lex("[tags]  # mine\n").unwrap_err();
        assert!(errors.starts_with("f:1:9: a comment"), "{errors}");
    }

    #[test]
    fn nul_bytes_control_characters_and_endless_lines_are_refused() {
        assert!(lex("a = 1\nb = x\0y\n").unwrap_err().starts_with("f:2:6: a NUL byte"));
        assert!(lex("b = \u{1b}[0m\n").unwrap_err().starts_with("f:1:5: a control character (U+001B)"));
        assert!(lex("b = x\ry\n").unwrap_err().contains("(U+000D)"));
        let long = format!("a = 1\n# {}\n", "x".repeat(MAX_LINE));
        assert!(lex(&long).unwrap_err().starts_with("f:2:1: the line is longer than 65536 bytes"));
    }

    /// What is wrong with these bytes, and what is doubtful.
    fn judged(bytes: &[u8]) -> (String, String) {
        let source = Source::new("f", bytes);
        let (path, mut findings) = (source.shared_path(), Findings::default());
        drop(sections_that_can_be_read(&source, &path, &mut findings));
        match findings.judge(()) {
            Ok(((), warnings)) => (String::new(), warnings.to_string()),
            Err(errors) => (errors.to_string(), String::new()),
        }
    }

    #[test]
    fn a_comment_or_a_tag_that_is_not_utf8_refuses_nothing_and_is_told_once() {
        let text = b"# by M\xfcller\na = 1\n\t# gr\xfc\xdfe\n[tags]\nsite = Z\xfcrich\n";
        let (errors, warnings) = judged(text);
        assert_eq!(errors, "");
        assert_eq!(warnings.matches("not UTF-8").count(), 1);
        assert!(warnings.starts_with("f:1:7: warning: the text is not UTF-8 (also on line 3, 5): "), "{warnings}");
        let source = Source::new("f", text.as_slice());
        let (path, mut findings) = (source.shared_path(), Findings::default());
        let sections = sections(&source, &path, &mut findings);
        assert_eq!(sections[1].settings[0].value.text(), "Z\u{fffd}rich");
    }

    #[test]
    fn anything_else_that_is_not_utf8_is_refused_where_it_stands() {
        for (text, place) in [
            (&b"a = 1\nb = caf\xe9 x\nc = 2\n"[..], "f:2:8: "),
            (b"\xff", "f:1:1: "),
            (b"\xef\xbb\xbfa = \xe9\n", "f:1:5: "),
            (b"[tags]\ns\xefte = x\n", "f:2:2: "),
            (b"[t\xe4gs]\na = 1\n", "f:1:3: "),
            (b"[profile p]\na = \xe9\n", "f:2:5: "),
        ] {
            let (errors, _) = judged(text);
            assert!(errors.starts_with(&format!("{place}the text is not UTF-8\n")), "{errors}");
            assert_eq!(errors.matches("\nhelp:").count(), 1, "{errors}");
        }
    }

    #[test]
    fn only_a_hash_after_a_blank_begins_a_comment() {
        let path: Arc<Path> = Arc::from(Path::new("f"));
        let comment = |line: &str| {
            let at = line.find('=').unwrap() + 1;
            let span = Span { path: &path, number: 1, line, start: at, end: line.len() };
            span.trimmed().comment().map(|c| c.start)
        };
        assert_eq!(comment("k = v # c"), Some(6));
        assert_eq!(comment("k = # c"), Some(4));
        assert_eq!(comment("k = v#c\t#d"), Some(8));
        assert_eq!(comment("k = v#c"), None);
        assert_eq!(comment("k =#c"), None);
    }
}
