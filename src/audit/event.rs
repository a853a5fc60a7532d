//! An event and the line it becomes.

use std::borrow::Cow;
use std::fmt::{Display, Write};

/// The longest value, in bytes; what is over is cut, and the cut is shown.
const MAX_VALUE: usize = 16 * 1024;
/// The longest line, in bytes. The journal's datagram repeats every value beside the line, and must stay below the
/// 208 KiB that a socket's send buffer has by default (`net.core.wmem_default`).
const MAX_LINE: usize = 64 * 1024;

/// How serious an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The ordinary course of things.
    Info,
    /// Something was refused, or is doubtful.
    Warning,
    /// Something failed.
    Error,
}

impl Level {
    /// Syslog's severity, RFC 5424 section 6.2.1.
    pub(super) const fn severity(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Warning => 4,
            Self::Error => 3,
        }
    }
}

/// Something that happened, with its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an event is written by Logger::emit"]
pub struct Event {
    level: Level,
    action: &'static str,
    fields: Vec<(&'static str, String)>,
}

/// An event ready to be sent: the line, and the same values bare for the journal's own fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered<'e> {
    pub(super) level: Level,
    pub(super) line: String,
    pub(super) fields: Vec<(&'static str, Cow<'e, str>)>,
}

impl Event {
    /// An event called `action`, without fields.
    pub const fn new(level: Level, action: &'static str) -> Self {
        Self { level, action, fields: Vec::new() }
    }

    /// Adds a field. A key set twice has the later value.
    pub fn field(mut self, key: &'static str, value: impl Display) -> Self {
        self.fields.retain(|(known, _)| *known != key);
        self.fields.push((key, value.to_string()));
        self
    }

    /// Adds a field if there is a value. No value, no field; an empty one is `KEY=`.
    pub fn maybe(self, key: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(key, value),
            None => self,
        }
    }

    /// About how many bytes it takes while it waits.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(_, value)| value.len() + size_of::<(&str, String)>()).sum::<usize>()
            + size_of::<Self>()
    }

    /// The line as it is logged: `ACTION` first, then the fields in the ASCII order of their keys.
    ///
    /// **Invariant:** it holds no line break and no control character, whatever the values hold.
    #[must_use]
    pub fn line(&self) -> String {
        self.render().line
    }

    pub(super) fn render(&self) -> Rendered<'_> {
        let mut ordered: Vec<_> = self.fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        ordered.sort_by_key(|(key, _)| *key);
        ordered.insert(0, ("ACTION", self.action));
        let mut limit = MAX_VALUE;
        loop {
            let fields: Vec<_> = ordered.iter().map(|(key, value)| (*key, cut(value, limit))).collect();
            let line = line(&fields);
            // Below this even a hundred values fit, and a value must stay recognisable.
            if line.len() <= MAX_LINE || limit <= 64 {
                return Rendered { level: self.level, line, fields };
            }
            limit /= 2;
        }
    }
}

fn line(fields: &[(&'static str, Cow<'_, str>)]) -> String {
    let mut line = String::new();
    for (key, value) in fields {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(key);
        line.push('=');
        push_value(&mut line, value);
    }
    line
}

/// At most `limit` bytes of a value, and how many are missing.
fn cut(value: &str, limit: usize) -> Cow<'_, str> {
    let kept = value.get(..value.floor_char_boundary(limit)).unwrap_or_default();
    match value.len() - kept.len() {
        0 => Cow::Borrowed(value),
        gone => Cow::Owned(format!("{kept}...[{gone}-bytes-cut]")),
    }
}

/// Appends a value, in quotes where it holds anything but plain visible characters.
fn push_value(line: &mut String, value: &str) {
    if !value.chars().any(|c| c.is_whitespace() || c == '"' || c == '\\' || escaped(c)) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for character in value.chars() {
        push_quoted(line, character);
    }
    line.push('"');
}

fn push_quoted(line: &mut String, character: char) {
    match character {
        '"' => line.push_str("\\\""),
        '\\' => line.push_str("\\\\"),
        '\n' => line.push_str("\\n"),
        '\t' => line.push_str("\\t"),
        '\r' => line.push_str("\\r"),
        c if escaped(c) => {
            let code = u32::from(c);
            // Writing to a string cannot fail.
            let _ = if code <= 0xff { write!(line, "\\x{code:02x}") } else { write!(line, "\\u{{{code:x}}}") };
        }
        c => line.push(c),
    }
}

/// Characters that end a line, steer a terminal or reorder what a reader sees: controls (C0, DEL, C1 with U+0085),
/// the two Unicode separators, and the bidirectional controls of Unicode annex 9.
fn escaped(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event() -> Event {
        Event::new(Level::Info, "t")
    }

    /// Reads a line back: the inverse of [`line`], strict about everything it does not write itself.
    fn parse(line: &str) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut rest = line;
        while !rest.is_empty() {
            let (key, after) = rest.split_once('=').unwrap();
            let end = after.find(' ').unwrap_or(after.len());
            let bare = || (after[..end].to_owned(), &after[end..]);
            let (value, after) = after.strip_prefix('"').map_or_else(bare, unquote);
            fields.push((key.to_owned(), value));
            rest = if after.is_empty() { after } else { after.strip_prefix(' ').unwrap() };
        }
        fields
    }

    fn unquote(text: &str) -> (String, &str) {
        let mut value = String::new();
        let mut rest = text.chars();
        let hex = |digits: String| char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap();
        loop {
            match rest.next().unwrap() {
                '"' => return (value, rest.as_str()),
                '\\' => value.push(match rest.next().unwrap() {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'x' => hex(rest.by_ref().take(2).collect()),
                    'u' => {
                        assert_eq!(rest.next(), Some('{'));
                        hex(rest.by_ref().take_while(|c| *c != '}').collect())
                    }
                    plain @ ('"' | '\\') => plain,
                    other => panic!("unknown escape {other:?}"),
                }),
                plain => value.push(plain),
            }
        }
    }

    #[test]
    fn plain_values_stand_as_they_always_did() {
        let event = event().field("N", 0).field("EQ", "a=b").field("EMPTY", "").field("ALPHA", "a b");
        assert_eq!(event.line(), "ACTION=t ALPHA=\"a b\" EMPTY= EQ=a=b N=0");
    }

    #[test]
    fn keys_stand_in_ascii_order_behind_the_action() {
        let event = event().field("b", 1).field("A_B", 2).field("AB", 3).field("ABC", 4).field("Z", 5);
        assert_eq!(event.line(), "ACTION=t AB=3 ABC=4 A_B=2 Z=5 b=1");
    }

    #[test]
    fn an_absent_value_is_no_field_and_a_later_one_replaces() {
        let event = event().maybe("A", None::<&str>).maybe("B", Some("")).field("C", 1).field("C", 2);
        assert_eq!(event.line(), "ACTION=t B= C=2");
    }

    #[test]
    fn what_could_forge_a_line_is_escaped() {
        let value = |text: &str| event().field("V", text).line().split_once(" V=").unwrap().1.to_owned();
        assert_eq!(value(r#"say "hi" now"#), r#""say \"hi\" now""#);
        assert_eq!(value(r#"""#), r#""\"""#);
        assert_eq!(value(r"a\b"), r#""a\\b""#);
        assert_eq!(value("x\nACTION=run\r\t"), r#""x\nACTION=run\r\t""#);
        assert_eq!(value("\0\u{1b}[2J\u{7f}\u{85}"), r#""\x00\x1b[2J\x7f\x85""#);
        assert_eq!(value("a\u{2028}b\u{2029}c\u{202e}d\u{2066}"), r#""a\u{2028}b\u{2029}c\u{202e}d\u{2066}""#);
        assert_eq!(value("Zürich"), "Zürich");
        assert_eq!(value("a\u{a0}b"), "\"a\u{a0}b\"");
    }

    #[test]
    fn a_value_too_long_is_cut_and_says_so() {
        let line = event().field("V", "é".repeat(MAX_VALUE)).line();
        assert!(line.len() < MAX_VALUE + 100);
        assert!(line.ends_with(&format!("...[{MAX_VALUE}-bytes-cut]")), "{}", &line[line.len() - 40..]);
    }

    #[test]
    fn a_line_too_long_is_cut_in_its_values() {
        const KEYS: [&str; 12] = ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"];
        let event = KEYS.iter().fold(event(), |event, key| event.field(key, "\u{1}".repeat(1 << 20)));
        let line = event.line();
        assert!(line.len() <= MAX_LINE, "{}", line.len());
        assert!(line.ends_with("bytes-cut]\"") && line.matches("-bytes-cut]").count() == 12);
        assert!(line.contains(&format!("...[{}-bytes-cut]", (1 << 20) - 1024)), "the count is of the whole value");
        assert_eq!(parse(&line).len(), 13);
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_and_reads_back_to_its_fields(a in any::<String>(), b in "[ \"\\\\\n\r\t=\u{85}\u{2028}\u{202e}x]{0,12}") {
            let line = event().field("A", &a).field("B", &b).field("Z", 1).line();
            prop_assert!(!line.chars().any(|c| c.is_control() || escaped(c)), "{line:?}");
            prop_assert_eq!(line.lines().count(), 1);
            let expected = [("ACTION", "t"), ("A", &a), ("B", &b), ("Z", "1")];
            let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            prop_assert_eq!(parse(&line), expected);
        }
    }
}
