//! The trust map: which serials an agent obeys, and as whom.
//!
//! The file is the original's: `<serial> <dispatcher id>` a line, `#` comments. A serial is read as hex alone, also
//! where it is all digits: a second reading here would let a stranger's certificate in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::wire::name::DispatcherId;
use crate::wire::serial::Serial;

const HEADER: &str = "# ctrl-exec trusted dispatchers: <serial> <dispatcher-id>\n# Managed by pairing, do not edit.\n";
/// The id of the dispatcher in the older file, which held nothing but a serial.
const LEGACY_ID: &str = "dispatcher";

/// A line that was passed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineWarning {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for LineWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Trusted serials with the dispatchers they belong to. Several serials may belong to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustMap {
    entries: BTreeMap<Serial, DispatcherId>,
}

impl TrustMap {
    /// Reads the file's text. Lines that make no sense trust nobody and are reported.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<LineWarning>) {
        let mut map = Self::default();
        let mut warnings = Vec::new();
        for (line, content) in lines(text) {
            match entry(content) {
                Ok((serial, id)) => {
                    if let Some(earlier) = map.entries.insert(serial, id) {
                        let reason = format!("this serial stood above already, for {earlier}: the last line counts");
                        warnings.push(LineWarning { line, reason });
                    }
                }
                Err(reason) => warnings.push(LineWarning { line, reason }),
            }
        }
        (map, warnings)
    }

    /// Reads the older file that held one dispatcher's serial alone; its dispatcher is called `dispatcher`.
    #[must_use]
    pub fn parse_legacy(text: &str) -> (Self, Vec<LineWarning>) {
        let mut map = Self::default();
        let mut warnings = Vec::new();
        for (line, content) in lines(text).take(1) {
            match Serial::parse_hex(content) {
                Ok(serial) => drop(map.insert(serial, DispatcherId::sanitise(LEGACY_ID))),
                Err(error) => warnings.push(LineWarning { line, reason: error.to_string() }),
            }
        }
        (map, warnings)
    }

    /// The text to write: two comment lines, then the entries sorted by serial.
    #[must_use]
    pub fn to_text(&self) -> String {
        let lines = self.entries.iter().map(|(serial, id)| format!("{serial} {id}\n"));
        std::iter::once(HEADER.to_owned()).chain(lines).collect()
    }

    /// The file's bytes, changed so that they say this: lines of serials that are not trusted any more go, new ones come
    /// last, and every other line stays as it is, whatever it is. An empty file gets [`to_text`](Self::to_text).
    #[must_use]
    pub fn put_into(&self, file: &[u8]) -> Vec<u8> {
        if file.is_empty() {
            return self.to_text().into_bytes();
        }
        let (mut out, mut there) = (Vec::with_capacity(file.len()), BTreeSet::new());
        for line in file.split_inclusive(|byte| *byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            if let Some((serial, id)) = content(&text).and_then(|content| entry(content).ok()) {
                if self.get(&serial) != Some(&id) {
                    continue;
                }
                there.insert(serial);
            }
            out.extend_from_slice(line);
        }
        if out.last().is_some_and(|byte| *byte != b'\n') {
            out.push(b'\n');
        }
        let fresh = self.entries.iter().filter(|(serial, _)| !there.contains(*serial));
        fresh.for_each(|(serial, id)| out.extend_from_slice(format!("{serial} {id}\n").as_bytes()));
        out
    }

    /// Whose serial it is; `None` for a stranger's.
    #[must_use]
    pub fn get(&self, serial: &Serial) -> Option<&DispatcherId> {
        self.entries.get(serial)
    }

    /// Trusts a serial; gives back whose it was before.
    pub fn insert(&mut self, serial: Serial, id: DispatcherId) -> Option<DispatcherId> {
        self.entries.insert(serial, id)
    }

    /// Trusts a serial no more; gives back whose it was.
    pub fn remove(&mut self, serial: &Serial) -> Option<DispatcherId> {
        self.entries.remove(serial)
    }

    /// Every entry, sorted by serial.
    pub fn iter(&self) -> impl Iterator<Item = (&Serial, &DispatcherId)> {
        self.entries.iter()
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The line of a trust map's text that counts for a serial, from 1; none for a stranger's.
#[must_use]
pub fn line_of(text: &str, serial: &Serial) -> Option<usize> {
    let of_serial = |(line, content)| entry(content).is_ok_and(|(found, _)| found == *serial).then_some(line);
    lines(text).filter_map(of_serial).last()
}

/// Numbered lines without their comments; blank ones are left out.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().filter_map(|(index, line)| Some((index + 1, content(line)?)))
}

/// A line without its comment and what is around it, if anything is left: blanks, and the byte order marks that are left
/// where files with one were put together. Whether a line counts does not depend on those before it, which may go.
fn content(line: &str) -> Option<&str> {
    let around = |character: char| character.is_whitespace() || character == '\u{feff}';
    let content = line.split('#').next().unwrap_or_default().trim_matches(around);
    (!content.is_empty()).then_some(content)
}

fn entry(line: &str) -> Result<(Serial, DispatcherId), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [serial, id] = words.as_slice() else {
        return Err("expected a serial and a dispatcher id, with a blank between them".to_owned());
    };
    let serial = Serial::parse_hex(serial).map_err(|error| error.to_string())?;
    let id = DispatcherId::parse(id).map_err(|error| error.to_string())?;
    Ok((serial, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serial(text: &str) -> Serial {
        Serial::parse_hex(text).unwrap()
    }

    #[test]
    fn an_original_file_is_read_with_its_comments_and_spellings() {
        let second = "a one # x\n\nA two\nb x y\n";
        assert_eq!(line_of(second, &serial("0a")), Some(3), "the last line counts");
        assert_eq!(line_of(second, &serial("b")), None);
        let text = "# title\n#more\n\nDE:AD:BE:EF  main # here\n0x1f\tbackup-2\r\n  serial=0A other.site\n";
        let (map, warnings) = TrustMap::parse(text);
        assert_eq!(warnings, []);
        assert_eq!(map.get(&serial("deadbeef")).unwrap().as_str(), "main");
        assert_eq!(map.get(&serial("1f")).unwrap().as_str(), "backup-2");
        assert_eq!(map.get(&serial("a")).unwrap().as_str(), "other.site");
        assert_eq!(map.iter().count(), 3);
    }

    #[test]
    fn nobody_is_trusted_because_a_line_before_his_went() {
        for file in ["\u{feff}\u{feff}ab one\n", "cd two\n\u{feff}ab one\n", "cd two\n \u{feff} ab one\u{feff}\r\n"] {
            let (mut map, warnings) = TrustMap::parse(file.trim_start_matches('\u{feff}'));
            assert_eq!((map.get(&serial("ab")).unwrap().as_str(), warnings), ("one", vec![]), "{file:?}");
            map.remove(&serial("cd"));
            let after = String::from_utf8(map.put_into(file.as_bytes())).unwrap();
            assert_eq!(TrustMap::parse(&after).0, map, "{file:?}");
        }
    }

    #[test]
    fn digits_are_trusted_as_hex_and_not_as_decimal() {
        let (map, _) = TrustMap::parse("16 main\n");
        assert!(map.get(&serial("16")).is_some());
        assert!(map.get(&serial("10")).is_none());
    }

    #[test]
    fn bad_lines_trust_nobody_and_are_reported_with_their_place() {
        let (map, warnings) = TrustMap::parse("a main\nzz main\nb ../x\nc\nd x y\na second\n");
        assert_eq!(map.to_text().lines().skip(2).collect::<Vec<_>>(), ["a second"]);
        assert_eq!(warnings.iter().map(|warning| warning.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }

    #[test]
    fn it_is_written_sorted_under_two_comment_lines() {
        let mut map = TrustMap::default();
        assert_eq!(map.insert(serial("ff"), DispatcherId::parse("b").unwrap()), None);
        assert_eq!(map.insert(serial("1a"), DispatcherId::parse("a").unwrap()), None);
        let text = map.to_text();
        assert_eq!(text.lines().filter(|line| line.starts_with('#')).count(), 2);
        assert_eq!(text.lines().skip(2).collect::<Vec<_>>(), ["1a a", "ff b"]);
        assert!(map.remove(&serial("1a")).is_some());
        assert!(!map.is_empty());
    }

    #[test]
    fn a_change_leaves_comments_spellings_and_what_it_does_not_understand_as_they_are() {
        let file = b"# by J. M\xfcller\nDE:AD one # main\r\nzz who\na two\na \xfc\nb three";
        let (mut map, _) = TrustMap::parse(&String::from_utf8_lossy(file));
        map.remove(&serial("a"));
        map.insert(serial("1f"), DispatcherId::parse("one").unwrap());
        let expected: &[u8] = b"# by J. M\xfcller\nDE:AD one # main\r\nzz who\na \xfc\nb three\n1f one\n";
        assert_eq!(map.put_into(file), expected);
    }

    #[test]
    fn the_older_file_of_one_serial_is_read() {
        let (map, warnings) = TrustMap::parse_legacy("AB12\n");
        assert_eq!((map.get(&serial("ab12")).unwrap().as_str(), warnings.len()), ("dispatcher", 0));
        assert!(TrustMap::parse_legacy("").0.is_empty());
        assert_eq!(TrustMap::parse_legacy("not a serial").1.len(), 1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            entries in
                proptest::collection::btree_map("[1-9a-f][0-9a-f]{0,39}", "[a-z0-9][a-zA-Z0-9._-]{0,63}", 0..8)
        ) {
            let mut map = TrustMap::default();
            for (number, id) in entries {
                map.insert(serial(&number), DispatcherId::parse(&id).unwrap());
            }
            let (again, warnings) = TrustMap::parse(&map.to_text());
            prop_assert_eq!(again, map);
            prop_assert!(warnings.is_empty());
        }

        #[test]
        fn no_line_that_means_nothing_is_lost_and_the_file_says_what_the_map_says(
            file in "(#|[a-c]|zz|x| |\u{e9}|\u{feff}|\r\n|\n|a one\n|b two # z\n|a two\n){0,24}",
            wanted in proptest::collection::btree_map("[a-d]", "(one|two)", 0..4)
        ) {
            let mut map = TrustMap::default();
            for (number, id) in wanted {
                map.insert(serial(&number), DispatcherId::parse(&id).unwrap());
            }
            let changed = String::from_utf8(map.put_into(file.as_bytes())).unwrap();
            prop_assert_eq!(&TrustMap::parse(&changed).0, &map);
            prop_assert!(changed.is_empty() || map.put_into(changed.as_bytes()) == changed.as_bytes());
            let strange = |text: &str| -> Vec<String> {
                let means_nothing = |line: &&str| content(line).is_none_or(|content| entry(content).is_err());
                text.lines().filter(means_nothing).map(str::to_owned).collect()
            };
            prop_assert!(file.is_empty() || strange(&file) == strange(&changed));
        }

        #[test]
        fn no_text_is_too_strange_to_read(text in ".{0,200}") {
            let _ = TrustMap::parse(&text);
        }
    }
}
