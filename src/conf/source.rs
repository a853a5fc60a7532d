//! One configuration file as it was read, and the checks that come before any line is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::Diagnostic;

/// The largest configuration file, in bytes.
pub(super) const MAX_FILE: usize = 1024 * 1024;

/// A byte order mark, as some editors begin a file.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// A configuration file: where it came from and what is in it.
#[derive(Clone, Debug)]
pub struct Source {
    path: Arc<Path>,
    text: Result<String, Box<Diagnostic>>,
    /// Lines that are not UTF-8, from 1, with the place of the first byte that is not.
    odd: BTreeMap<usize, usize>,
}

impl Source {
    /// Takes what was read from `path`. Bytes that cannot be a configuration file (over 1 MiB, or UTF-16) are reported when
    /// the source is parsed, with everything else that is wrong; so are lines that are not UTF-8, where that matters.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        let path: Arc<Path> = path.into().into();
        match checked(&path, bytes.into()) {
            Ok((text, odd)) => Self { path, text: Ok(text), odd },
            Err(why) => Self { path, text: Err(Box::new(why)), odd: BTreeMap::new() },
        }
    }

    /// The path the text was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn shared_path(&self) -> Arc<Path> {
        Arc::clone(&self.path)
    }

    /// Where on a line the first byte is that is not UTF-8, and in the text U+FFFD.
    pub(super) fn odd(&self, line: usize) -> Option<usize> {
        self.odd.get(&line).copied()
    }

    /// The text without a byte order mark, or why there is none.
    pub(super) fn text(&self) -> Result<&str, &Diagnostic> {
        self.text.as_deref().map_err(|why| &**why)
    }
}

fn checked(path: &Arc<Path>, mut bytes: Vec<u8>) -> Result<(String, BTreeMap<usize, usize>), Diagnostic> {
    if bytes.len() > MAX_FILE {
        let message = format!("the file is {} bytes long, at most {MAX_FILE} are read", bytes.len());
        return Err(Diagnostic::whole_file(path, message).help("is this really a configuration file?"));
    }
    // Before any place is counted: nobody sees it.
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok((text, BTreeMap::new())),
        // UTF-16: there is no line in it to be read.
        Err(error) if error.as_bytes().contains(&0) => {
            return Err(not_utf8(path, error.as_bytes(), error.utf8_error().valid_up_to()));
        }
        Err(error) => error.into_bytes(),
    };
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let odd = lines.filter_map(|(index, line)| Some((index + 1, str::from_utf8(line).err()?.valid_up_to())));
    Ok((String::from_utf8_lossy(&bytes).into_owned(), odd.collect()))
}

/// Points at the first byte that is not UTF-8. `valid` bytes before it are.
fn not_utf8(path: &Arc<Path>, bytes: &[u8], valid: usize) -> Diagnostic {
    let before = bytes.get(..valid).unwrap_or_default();
    let number = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = bytes.get(start..).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let shown = String::from_utf8_lossy(line);
    let at = valid - start;
    let end = shown.get(at..).and_then(|tail| tail.chars().next()).map_or(at, |c| at + c.len_utf8());
    Diagnostic::at_line(path, (number, &shown), at..end, NOT_UTF8).help(SAVE)
}

/// What is said of such a line, and what to do.
pub(super) const NOT_UTF8: &str = "the text is not UTF-8";
pub(super) const SAVE: &str = "save the file as UTF-8; plain ASCII is always right";

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: impl Into<Vec<u8>>) -> Diagnostic {
        Source::new("/etc/x.conf", bytes).text().unwrap_err().clone()
    }

    #[test]
    fn utf_16_is_refused_as_a_whole() {
        let error = refusal(b"\xff\xfea\0=\x001\0\n\0".to_vec());
        assert!(error.to_string().starts_with("/etc/x.conf:1:1: the text is not UTF-8"), "{error}");
        assert_eq!(error.column(), Some(1));
    }

    #[test]
    fn lines_that_are_not_utf8_are_known_by_their_number() {
        let source = Source::new("x", b"\xef\xbb\xbfa = 1\nb = caf\xe9 x\xff\n\xe9\r\n".to_vec());
        assert_eq!([1, 2, 3, 4].map(|line| source.odd(line)), [None, Some(7), Some(0), None]);
        assert_eq!(source.text().unwrap(), "a = 1\nb = caf\u{fffd} x\u{fffd}\n\u{fffd}\r\n");
    }

    #[test]
    fn a_file_over_one_mebibyte_is_refused() {
        assert!(Source::new("x", vec![b'#'; MAX_FILE]).text().is_ok());
        let error = refusal(vec![b'#'; MAX_FILE + 1]);
        assert_eq!(error.line(), None);
        assert!(error.to_string().contains("1048577 bytes"), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(Source::new("x", "\u{feff}a = 1").text().unwrap(), "a = 1");
    }
}
