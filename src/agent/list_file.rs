//! The files that trust and revocation stand in, line by line, read in one way by everybody who reads or changes them.
//!
//! **Invariant:** whoever changes a list sees the lines that serving sees. A byte order mark that one of the two did not
//! know of would take the first line away from its dispatcher.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::sys::file::{self, FileError};

/// Largest trust map or revocation list, in bytes: a hundred thousand lines.
const LIST: usize = 8 * 1024 * 1024;
/// As some editors begin a file: the byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a list, without a byte order mark; none where there is no such file.
///
/// # Errors
/// It cannot be read; it is larger than 8 MiB; or it is a link to nothing: somebody made a list, and what stood in it is
/// not known.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match file::read_bounded(path, LIST) {
        Ok(bytes) => Ok(Some(unmarked(&bytes).to_vec())),
        Err(error) if error.is_not_found() && leads_nowhere(path) => {
            Err(FileError::new(path, "follow the link", io::Error::new(ErrorKind::NotADirectory, NOWHERE)))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is wrong with a link to a file that is not there.
const NOWHERE: &str =
    "it leads to a file that does not exist: put that back, or remove the link if there is to be no list";

/// Whether there is a name that leads to no file.
#[must_use]
pub fn leads_nowhere(path: &Path) -> bool {
    path.symlink_metadata().is_ok() && path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The text of such bytes. What is no UTF-8 is replaced: in a comment it means nothing, and elsewhere the line is no serial
/// or names nobody.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(unmarked(bytes)).into_owned()
}

/// Without the byte order mark that some editors begin a file with.
#[must_use]
pub fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::revoked::RevocationList;
    use crate::pki::trust::TrustMap;

    #[test]
    fn a_mark_of_the_byte_order_does_not_unrevoke_the_first_serial() {
        let (list, warnings) = RevocationList::parse(&text("\u{feff}deadbeef\n".as_bytes()));
        assert_eq!((list.iter().count(), warnings), (1, vec![]));
    }

    #[test]
    fn a_mark_of_the_byte_order_does_not_hide_the_older_file_of_one_serial() {
        let (map, warnings) = TrustMap::parse_legacy(&text(b"\xef\xbb\xbfD15B01\r\n"));
        assert_eq!((map.iter().count(), warnings), (1, vec![]));
    }

    #[test]
    fn a_comment_in_another_encoding_is_no_error_and_a_serial_in_one_is_told() {
        let (list, warnings) = RevocationList::parse(&text(b"# M\xfcller left\n1f # gr\xfc\xdfe\n\xfc1e\n"));
        assert_eq!(list.iter().map(crate::wire::serial::Serial::as_str).collect::<Vec<_>>(), ["1f"]);
        assert_eq!(warnings.iter().map(|warning| warning.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_link_to_nothing_is_not_an_absent_list() {
        let dir = tempfile::tempdir().unwrap();
        let (link, list) = (dir.path().join("link"), dir.path().join("list"));
        assert_eq!(read(&link).unwrap(), None);
        std::os::unix::fs::symlink(&list, &link).unwrap();
        let error = read(&link).unwrap_err();
        assert!(!error.is_not_found() && error.to_string().contains("link"), "{error}");
        file::write_atomic(&list, "\u{feff}1f\n".as_bytes(), file::Access::public()).unwrap();
        assert_eq!(read(&link).unwrap().unwrap(), b"1f\n");
    }
}
