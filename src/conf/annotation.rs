//! The words beside a script's path in `scripts.conf`: `profile=NAME`, `sha256=HEX`, `args=COUNT`.

use std::fmt;

use super::diagnostic::{Diagnostic, shown};
use super::lexer::Span;
use super::names::ProfileName;
use super::nearest::nearest;
use crate::wire::{hex, limits};

/// Each annotation and the form of its value.
const FORMS: [(&str, &str); 3] = [("profile", "NAME"), ("sha256", "64 hex digits"), ("args", "none, N or N..M")];

/// Every annotation, for tests that have something for each.
#[cfg(test)]
pub(crate) fn words() -> [&'static str; FORMS.len()] {
    FORMS.map(|(word, _)| word)
}

/// A word with so many letters of a known one at its beginning may be meant for that.
const ALIKE: usize = 3;

/// How many arguments a script takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArgumentCount {
    least: usize,
    most: usize,
}

impl ArgumentCount {
    /// Whether `count` arguments are as many as it takes.
    #[must_use]
    pub const fn allows(self, count: usize) -> bool {
        self.least <= count && count <= self.most
    }

    /// From `none`, `N` or `N..M`, both ends included, up to the most that any run can have.
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|count: &usize| digits && *count <= limits::ARGUMENTS)
        };
        let (least, most) = match text.split_once("..") {
            Some((least, most)) => (number(least)?, number(most)?),
            None if text == "none" => (0, 0),
            None => (number(text)?, number(text)?),
        };
        (least <= most).then_some(Self { least, most })
    }
}

impl fmt::Display for ArgumentCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (_, 0) => f.write_str("no arguments"),
            (1, 1) => f.write_str("1 argument"),
            (least, most) if least == most => write!(f, "{least} arguments"),
            (least, most) => write!(f, "{least} to {most} arguments"),
        }
    }
}

/// The annotations of one line.
#[derive(Default)]
pub(super) struct Annotations {
    pub(super) profile: Option<ProfileName>,
    pub(super) sha256: Option<[u8; 32]>,
    pub(super) args: Option<ArgumentCount>,
    /// What is doubtful about them.
    pub(super) doubts: Vec<Diagnostic>,
}

impl Annotations {
    /// Takes one token, if it is `word=value`; `Ok(false)` for a token of another kind.
    pub(super) fn take(&mut self, token: Span<'_>) -> Result<bool, Diagnostic> {
        let Some(length) = word(token.text()) else { return Ok(false) };
        let (word, value) = (token.sub(0, length), token.sub(length + 1, token.len()));
        match word.text() {
            "profile" => fill(&mut self.profile, ProfileName::parse(value.text()), word, value),
            "sha256" => fill(&mut self.sha256, hex::decode(value.text()), word, value),
            "args" => fill(&mut self.args, ArgumentCount::parse(value.text()), word, value),
            other => unknown(word, other).map(|doubt| self.doubts.push(doubt)),
        }
        .map(|()| true)
    }
}

fn fill<T>(slot: &mut Option<T>, read: Option<T>, word: Span<'_>, value: Span<'_>) -> Result<(), Diagnostic> {
    let name = word.text();
    if slot.is_some() {
        let error = word.error(format!("a second '{name}=' on one line"));
        return Err(error.help(format!("a script has one; remove the other '{name}='")));
    }
    if read.is_some() {
        *slot = read;
        return Ok(());
    }
    let at = if value.is_empty() { word } else { value };
    let text = shown(value.text());
    Err(match name {
        "profile" => at.error(format!("'{text}' is no profile name")).help("letters, digits, '_', '.' and '-'"),
        "sha256" => at
            .error(format!("'{text}' is no SHA-256 digest"))
            .help("64 hex digits, as the program sha256sum prints them for the script's file"),
        _ => at
            .error(format!("'{text}' is no number of arguments"))
            .help(format!("'none', '2', or '0..3'; at most {}", limits::ARGUMENTS)),
    })
}

/// A word of somebody else's, which the original ignored, is ignored with a warning. One that may be meant for one of ours,
/// misspelt or with the same beginning (`sha512`, `arguments`), is an error: every one of them restricts the script.
fn unknown(word: Span<'_>, name: &str) -> Result<Diagnostic, Diagnostic> {
    let begins = |known: &&str| {
        let [one, other] = [name, *known].map(|text| text.get(..ALIKE).map(str::to_ascii_lowercase));
        one.is_some() && one == other
    };
    let known = FORMS.map(|(known, _)| known);
    let meant = nearest(name, known).or_else(|| known.into_iter().find(begins));
    let text = format!("unknown annotation '{}'", shown(name));
    if let Some((name, form)) = FORMS.iter().find(|(name, _)| Some(*name) == meant) {
        return Err(word.error(text).help(format!("did you mean '{name}={form}'?")));
    }
    let doubt = word.error(text + ": it means nothing here and restricts nothing");
    Ok(doubt.help("known here: 'profile=', 'sha256=' and 'args='").into_warning())
}

/// The length of the word before `=`, where a token is an annotation. A path begins with `/` and is none.
fn word(token: &str) -> Option<usize> {
    let (word, _) = token.split_once('=')?;
    let letters = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (letters && word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')).then_some(word.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_arguments_is_none_one_number_or_a_range() {
        let read = |text: &str| ArgumentCount::parse(text).map(|count| (count.least, count.most));
        assert_eq!((read("none"), read("0"), read("3")), (Some((0, 0)), Some((0, 0)), Some((3, 3))));
        assert_eq!((read("0..2"), read("2..2"), read("1..256")), (Some((0, 2)), Some((2, 2)), Some((1, 256))));
        for junk in [
            "",
            "..",
            "1..",
            "..2",
            "3..2",
            "257",
            "1..257",
            "-1",
            "+1",
            "1...2",
            "1-2",
            "None",
            "99999999999999999999",
        ] {
            assert_eq!(read(junk), None, "{junk}");
        }
    }

    #[test]
    fn its_ends_are_included_and_it_reads_as_words() {
        let count = ArgumentCount::parse("1..2").unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| count.allows(n)), [false, true, true, false]);
        let words = ["none", "1", "2", "0..3"].map(|text| ArgumentCount::parse(text).unwrap().to_string());
        assert_eq!(words, ["no arguments", "1 argument", "2 arguments", "0 to 3 arguments"]);
    }
}
