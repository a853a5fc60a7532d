//! Fresh serial numbers: 128 random bits that no reader can take for a decimal number.

use crate::wire::serial::Serial;

/// A serial made for a certificate that is about to be issued. It can be used once: issuing consumes it.
///
/// **Invariant:** positive, 16 octets without a leading zero nibble, and with at least one letter in its hex. The
/// original reads a serial of digits alone as decimal, on either end; a letter keeps that reading from existing.
#[derive(Debug)]
pub struct FreshSerial([u8; 16]);

/// The system's random source gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed: no serial number or key can be made")]
pub struct RandomError;

impl FreshSerial {
    /// The canonical form, as registry, trust map and log show it.
    #[must_use]
    pub fn serial(&self) -> Serial {
        Serial::from_bytes(&self.0)
    }

    /// The content octets of the certificate's INTEGER.
    pub(super) const fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// A serial from the random bytes that `fill` gives.
pub fn random<E>(mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<FreshSerial, E> {
    let mut octets = [0; 16];
    fill(&mut octets)?;
    if let Some(first) = octets.first_mut() {
        // Positive (top bit clear), and never shorter than 32 digits.
        *first &= 0x7f;
        if *first < 0x10 {
            *first |= 0x40;
        }
    }
    let has_letter = octets.iter().any(|octet| octet >> 4 > 9 || octet & 0xf > 9);
    if let (false, Some(last)) = (has_letter, octets.last_mut()) {
        *last = (*last & 0xf0) | (0xa + (*last & 0xf) % 6);
    }
    Ok(FreshSerial(octets))
}

/// A serial from the system's random source.
pub fn fresh() -> Result<FreshSerial, RandomError> {
    random(|bytes| aws_lc_rs::rand::fill(bytes).map_err(|_| RandomError))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn from(bytes: [u8; 16]) -> String {
        let fresh = random(|out| {
            out.copy_from_slice(&bytes);
            Ok::<_, RandomError>(())
        });
        fresh.unwrap().serial().to_string()
    }

    proptest! {
        #[test]
        fn every_serial_is_positive_whole_and_not_decimal(bytes: [u8; 16]) {
            let hex = from(bytes);
            prop_assert_eq!(hex.len(), 32);
            prop_assert!(('1'..='7').contains(&hex.chars().next().unwrap()));
            prop_assert!(hex.chars().any(|c| c.is_ascii_lowercase()));
        }
    }

    #[test]
    fn a_source_of_digits_alone_still_makes_a_letter() {
        assert_eq!(from([0x11; 16]), "1111111111111111111111111111111b");
        assert_eq!(from([0; 16]), "4000000000000000000000000000000a");
    }

    #[test]
    fn two_serials_differ_and_a_dry_source_is_an_error() {
        assert_ne!(fresh().unwrap().serial(), fresh().unwrap().serial());
        assert!(random(|_| Err(RandomError)).is_err());
    }
}
