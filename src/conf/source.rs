//! One configuration file as it was read, and the checks that come before any line is looked at.

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
}

impl Source {
    /// Takes what was read from `path`. Bytes that cannot be a configuration file (over 1 MiB, or not UTF-8) are
    /// reported when the source is parsed, with everything else that is wrong.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        let path: Arc<Path> = path.into().into();
        let text = checked(&path, bytes.into()).map_err(Box::new);
        Self { path, text }
    }

    /// The path the text was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn shared_path(&self) -> Arc<Path> {
        Arc::clone(&self.path)
    }

    /// The text without a byte order mark, or why there is none.
    pub(super) fn text(&self) -> Result<&str, &Diagnostic> {
        self.text.as_deref().map_err(|why| &**why)
    }
}

fn checked(path: &Arc<Path>, mut bytes: Vec<u8>) -> Result<String, Diagnostic> {
    if bytes.len() > MAX_FILE {
        let message = format!("the file is {} bytes long, at most {MAX_FILE} are read", bytes.len());
        return Err(Diagnostic::whole_file(path, message).help("is this really a configuration file?"));
    }
    // Before any place is counted: nobody sees it.
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(path, error.as_bytes(), error.utf8_error().valid_up_to()))
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
    Diagnostic::at_line(path, (number, &shown), at..end, "the text is not UTF-8")
        .help("save the file as UTF-8; plain ASCII is always right")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: impl Into<Vec<u8>>) -> Diagnostic {
        Source::new("/etc/x.conf", bytes).text().unwrap_err().clone()
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_where_they_stand() {
        let error = refusal(b"a = 1\nb = caf\xe9 x\nc = 2\n".to_vec());
        assert_eq!((error.line(), error.column()), (Some(2), Some(8)));
        assert!(error.to_string().starts_with("/etc/x.conf:2:8: the text is not UTF-8"), "{error}");
        assert_eq!(refusal(b"\xff".to_vec()).column(), Some(1));
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

    #[test]
    fn a_byte_order_mark_moves_no_place() {
        let error = refusal(b"\xef\xbb\xbfa = \xe9\n".to_vec());
        assert_eq!((error.line(), error.column()), (Some(1), Some(5)), "{error}");
    }
}
