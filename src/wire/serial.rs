//! Certificate serial numbers in one canonical form: lower-case hex without separators or leading zeros.
//!
//! **Invariant:** the canonical form is a fixed point. Canonical text parses to itself, whatever its digits; the
//! original's form reads all-digit hex as decimal, so that two serials could meet in one.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::hex;

/// Longest serial in hex digits. RFC 5280 4.1.2.2 allows 20 octets; older tools made a few more.
const MOST_DIGITS: usize = 64;

/// A certificate's serial number. Compare with `==`; print with `Display`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(String);

/// A text that is no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a certificate serial number: write it in hex, with or without colons")]
pub struct SerialError(String);

impl Serial {
    /// The serial of these big-endian bytes, as they stand in a certificate.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(minimal(&hex::encode(bytes)))
    }

    /// Reads hex in every documented spelling: `DE:AD`, `0xdead`, `serial=DEAD`, `dead`. Digits are hex digits.
    pub fn parse_hex(text: &str) -> Result<Self, SerialError> {
        let bare = strip(text);
        let digits: String = bare.chars().filter(|c| *c != ':').collect();
        let valid = (1..=MOST_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if valid { Ok(Self(minimal(&digits))) } else { Err(SerialError(text.chars().take(80).collect())) }
    }

    /// Both readings of a line that an operator wrote by hand: hex, and, where it is all digits without colons or
    /// prefix, also decimal. For *revocation* both count, since refusing one certificate too many is the safe error.
    pub fn operator_readings(text: &str) -> Result<Vec<Self>, SerialError> {
        let hex = Self::parse_hex(text)?;
        let bare = text.trim();
        match decimal_to_hex(bare) {
            Some(decimal) if decimal != hex.0 => Ok(vec![hex, Self(decimal)]),
            _ => Ok(vec![hex]),
        }
    }

    /// The canonical text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Serial {
    type Error = SerialError;

    fn try_from(text: String) -> Result<Self, SerialError> {
        Self::parse_hex(&text)
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn strip(text: &str) -> &str {
    let text = text.trim();
    let text = text.strip_prefix("serial=").unwrap_or(text);
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text)
}

fn minimal(digits: &str) -> String {
    let lower = digits.to_ascii_lowercase();
    let trimmed = lower.trim_start_matches('0');
    if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
}

/// Converts decimal digits to hex by schoolbook long division; `None` where the text is not all digits.
fn decimal_to_hex(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > MOST_DIGITS || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut decimal: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
    let mut hex = Vec::new();
    while decimal.iter().any(|digit| *digit != 0) {
        let mut rest = 0_u16;
        for digit in &mut decimal {
            let value = rest * 10 + u16::from(*digit);
            *digit = u8::try_from(value / 16).unwrap_or(0);
            rest = value % 16;
        }
        hex.push(char::from_digit(u32::from(rest), 16).unwrap_or('0'));
    }
    Some(minimal(&hex.iter().rev().collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Serial::parse_hex(text).unwrap().to_string()
    }

    #[test]
    fn every_spelling_becomes_one_form() {
        for (text, want) in [
            ("DE:AD:BE:EF", "deadbeef"),
            ("00:0a", "a"),
            ("0A", "a"),
            ("00:16", "16"),
            ("1f", "1f"),
            ("0x1F", "1f"),
            ("0x16", "16"),
            ("serial=0A", "a"),
            ("00aabb", "aabb"),
            ("00", "0"),
            ("16:00", "1600"),
        ] {
            assert_eq!(canonical(text), want, "{text}");
        }
    }

    #[test]
    fn digits_are_hex_and_the_form_is_a_fixed_point() {
        for text in ["10", "16", "255", "0a", "12345678901234567890"] {
            let once = canonical(text);
            assert_eq!(canonical(&once), once);
        }
        assert_ne!(canonical("10"), canonical("0a"));
    }

    #[test]
    fn junk_is_an_error_and_not_a_serial() {
        for text in ["", "abc xyz", "nan", "0x", ":", "-1", &"a".repeat(65)] {
            assert!(Serial::parse_hex(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_operators_digits_have_two_readings() {
        let readings = Serial::operator_readings("255").unwrap();
        assert_eq!(readings.iter().map(Serial::as_str).collect::<Vec<_>>(), ["255", "ff"]);
        let big = Serial::operator_readings("12345678901234567890").unwrap();
        assert_eq!(big[1].as_str(), "ab54a98ceb1f0ad2");
        let huge = Serial::operator_readings("1000000000000000000000").unwrap();
        assert_eq!(huge[1].as_str(), "3635c9adc5dea00000");
        assert_eq!(Serial::operator_readings("0x255").unwrap().len(), 1);
        assert_eq!(Serial::operator_readings("7").unwrap().len(), 1);
    }

    #[test]
    fn bytes_and_text_agree() {
        assert_eq!(Serial::from_bytes(&[0, 0xde, 0xad]), Serial::parse_hex("DE:AD").unwrap());
        assert_eq!(Serial::from_bytes(&[]).as_str(), "0");
    }
}
