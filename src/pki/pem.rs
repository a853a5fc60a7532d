//! PEM text (RFC 7468), read strictly where it comes from a peer and leniently where it is an operator's file.

use base64::Engine as _;
use rustls::pki_types::pem::{PemObject as _, SectionKind};

/// Most characters of one PEM text. A certificate under an RSA-8192 CA needs 6,000.
const LONGEST: usize = 65_536;
const LINE: usize = 64;

/// A text that does not hold the PEM that was expected of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No block of the wanted kind.
    #[error("there is no PEM block '{0}' in it")]
    Absent(&'static str),
    /// More than one block of the wanted kind.
    #[error("there are {count} PEM blocks '{label}' in it, where one belongs")]
    Several {
        /// The kind of block.
        label: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Text before, behind or between.
    #[error("there is other text around the PEM block '{0}': send the block alone")]
    Surrounded(&'static str),
    /// Damaged base64 or markers.
    #[error("the PEM block '{0}' is damaged")]
    Damaged(&'static str),
    /// Longer than any certificate.
    #[error("the PEM text is longer than {LONGEST} characters")]
    TooLong,
}

/// The DER of a text that is one block of this label and nothing else but white space behind it.
pub fn strict(text: &str, label: &'static str) -> Result<Vec<u8>, PemError> {
    if text.len() > LONGEST {
        return Err(PemError::TooLong);
    }
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let Some(body) = text.strip_prefix(&begin) else {
        let found = text.contains(&begin);
        return Err(if found { PemError::Surrounded(label) } else { PemError::Absent(label) });
    };
    let Some((body, behind)) = body.split_once(&end) else {
        return Err(PemError::Damaged(label));
    };
    if behind.contains(&begin) {
        return Err(PemError::Several { label, count: 1 + behind.matches(&begin).count() });
    }
    if !behind.trim().is_empty() {
        return Err(PemError::Surrounded(label));
    }
    // Base64 alone between the markers: no headers, no second marker that another reader would obey.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    if !body.starts_with(['\r', '\n']) || !body.bytes().all(plain) {
        return Err(PemError::Damaged(label));
    }
    one(all(text, label)?, label)
}

/// The DER of every block of this label; other blocks and explanatory text are passed over.
pub fn all(text: &str, label: &'static str) -> Result<Vec<Vec<u8>>, PemError> {
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|_| PemError::Damaged(label))?;
        let found_label = match kind {
            SectionKind::Certificate => "CERTIFICATE",
            SectionKind::Csr => "CERTIFICATE REQUEST",
            _ => continue,
        };
        if found_label == label {
            found.push(der);
        }
    }
    Ok(found)
}

/// The DER of the only block of this label.
pub fn single(text: &str, label: &'static str) -> Result<Vec<u8>, PemError> {
    if text.len() > LONGEST {
        return Err(PemError::TooLong);
    }
    one(all(text, label)?, label)
}

fn one(blocks: Vec<Vec<u8>>, label: &'static str) -> Result<Vec<u8>, PemError> {
    let count = blocks.len();
    match (count, blocks.into_iter().next()) {
        (1, Some(der)) => Ok(der),
        (0, _) | (_, None) => Err(PemError::Absent(label)),
        _ => Err(PemError::Several { label, count }),
    }
}

/// A block of this label, lines of 64 characters, with a newline at the end.
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every position is a boundary.
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSR: &str = "CERTIFICATE REQUEST";

    #[test]
    fn what_is_encoded_is_read_back() {
        for length in [0, 1, 47, 48, 49, 500] {
            let der = vec![0xa5; length];
            assert_eq!(strict(&encode(CSR, &der), CSR), Ok(der));
        }
    }

    #[test]
    fn crlf_and_blank_lines_behind_the_end_are_fine() {
        let text = encode(CSR, &[1, 2, 3]).replace('\n', "\r\n") + "\r\n  \n";
        assert_eq!(strict(&text, CSR), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn anything_around_the_block_is_refused() {
        let block = encode(CSR, &[1, 2, 3]);
        assert_eq!(strict(&format!("\n{block}"), CSR), Err(PemError::Surrounded(CSR)));
        assert_eq!(strict(&format!("{block}x"), CSR), Err(PemError::Surrounded(CSR)));
        assert_eq!(strict(&format!("{block}{block}"), CSR), Err(PemError::Several { label: CSR, count: 2 }));
        let other = encode("CERTIFICATE", &[1]);
        assert_eq!(strict(&format!("{block}{other}"), CSR), Err(PemError::Surrounded(CSR)));
        assert_eq!(strict(&other, CSR), Err(PemError::Absent(CSR)));
        assert_eq!(strict(&encode("NEW CERTIFICATE REQUEST", &[1]), CSR), Err(PemError::Absent(CSR)));
    }

    #[test]
    fn headers_and_foreign_characters_inside_the_block_are_refused() {
        let block = encode(CSR, &[1, 2, 3]);
        let header = block.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1);
        assert_eq!(strict(&header, CSR), Err(PemError::Damaged(CSR)));
        assert_eq!(strict(&block.replace("-----END", "----END"), CSR), Err(PemError::Damaged(CSR)));
        assert_eq!(strict(&block.replacen("AQ", "A\u{e9}", 1), CSR), Err(PemError::Damaged(CSR)));
    }

    #[test]
    fn an_operators_file_may_explain_itself() {
        let text = format!("subject=CN = x\n{}trailing\n", encode("CERTIFICATE", &[9]));
        assert_eq!(single(&text, "CERTIFICATE"), Ok(vec![9]));
    }
}
