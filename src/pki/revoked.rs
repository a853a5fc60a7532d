//! The revocation list: serials that are refused before anything else is looked at.
//!
//! An operator writes it by hand, so an entry of digits alone counts in both its readings, hex and decimal: to refuse
//! one certificate too many is the safe error.

use std::collections::BTreeSet;

use super::trust::{LineWarning, lines};
use crate::wire::serial::Serial;

/// Revoked serials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationList {
    serials: BTreeSet<Serial>,
    entries: usize,
}

impl RevocationList {
    /// Reads the file's text: one serial a line, `#` comments. A line that is no serial revokes nothing and is
    /// reported.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<LineWarning>) {
        let mut list = Self::default();
        let mut warnings = Vec::new();
        for (line, content) in lines(text) {
            match Serial::operator_readings(content) {
                Ok(readings) => {
                    let known = list.serials.len();
                    list.serials.extend(readings);
                    list.entries += usize::from(list.serials.len() > known);
                }
                Err(error) => warnings.push(LineWarning { line, reason: error.to_string() }),
            }
        }
        (list, warnings)
    }

    /// Whether the serial is revoked.
    #[must_use]
    pub fn contains(&self, serial: &Serial) -> bool {
        self.serials.contains(serial)
    }

    /// Revokes one more, known exactly; `false` if it was revoked already.
    pub fn insert(&mut self, serial: Serial) -> bool {
        let new = self.serials.insert(serial);
        self.entries += usize::from(new);
        new
    }

    /// How many certificates are meant: one that can be read in two ways counts once.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// Every reading, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Serial> {
        self.serials.iter()
    }

    /// Whether nothing is revoked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }
}

/// The first line of a revocation list's text that revokes a serial, from 1.
#[must_use]
pub fn line_of(text: &str, serial: &Serial) -> Option<usize> {
    let revokes = |content| Serial::operator_readings(content).is_ok_and(|readings| readings.contains(serial));
    lines(text).find_map(|(line, content)| revokes(content).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revoked(line: &str, serial: &str) -> bool {
        RevocationList::parse(line).0.contains(&Serial::parse_hex(serial).unwrap())
    }

    #[test]
    fn a_revoked_serial_is_refused_in_every_spelling() {
        for line in [
            "DE:AD:BE:EF",
            "de:ad:be:ef",
            "00:DE:AD:BE:EF",
            "0xDEADBEEF",
            "serial=DEADBEEF",
            "00deadbeef",
            "deadbeef # x",
        ] {
            assert!(revoked(line, "deadbeef"), "{line}");
        }
    }

    #[test]
    fn digits_are_refused_as_hex_and_as_decimal() {
        assert!(revoked("16", "16") && revoked("16", "10"));
        assert!(!revoked("00:16", "10"), "colons say hex");
        assert!(revoked("12345678901234567890", "ab54a98ceb1f0ad2"));
        let (list, _) = RevocationList::parse("16\n1f\n0x1F\n16\n");
        assert_eq!((list.len(), list.iter().count()), (2, 3), "two certificates, one of them in two readings");
    }

    #[test]
    fn a_line_that_is_no_serial_is_reported() {
        let (list, warnings) = RevocationList::parse("# x\n\nabc xyz\n1f\n");
        assert_eq!(list.iter().map(Serial::as_str).collect::<Vec<_>>(), ["1f"]);
        assert_eq!(warnings.first().map(|warning| warning.line), Some(3));
        assert_eq!(line_of("# x\nabc xyz\n16\n10\n", &Serial::parse_hex("10").unwrap()), Some(3));
    }
}
