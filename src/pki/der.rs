//! The few pieces of DER (ITU-T X.690) that are written or checked byte by byte.
//!
//! Reading: x509-parser does not object to bytes left over inside a structure, so every object is walked here first
//! and must be exactly one well-formed element. Writing: a leaf's issuer must repeat the CA's name byte for byte,
//! which rcgen cannot promise for names with repeated attributes such as `DC=example, DC=com`.

use time::OffsetDateTime;

/// Tag of a SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// Tag of a SET.
pub(super) const SET: u8 = 0x31;
/// Tag of a BOOLEAN.
pub(super) const BOOLEAN: u8 = 0x01;
/// Tag of an INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Tag of a BIT STRING.
pub(super) const BIT_STRING: u8 = 0x03;
/// Tag of an OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// Tag of an OBJECT IDENTIFIER.
pub(super) const OID: u8 = 0x06;
/// Tag of a `UTF8String`.
pub(super) const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

const CONSTRUCTED: u8 = 0x20;
const HIGH_TAG: u8 = 0x1f;
/// Deeper nesting than any certificate has; bounds the recursion on hostile input.
const DEEPEST: usize = 24;

/// One element: its tag, its content, and the whole of it with tag and length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    pub(super) whole: &'a [u8],
}

/// The first element of `input` and what follows it; `None` where the tag or length is not DER.
fn read(input: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after_first) = after_tag.split_first()?;
    if tag & HIGH_TAG == HIGH_TAG {
        return None;
    }
    let (length, body) = if first < 0x80 {
        (usize::from(first), after_first)
    } else {
        let count = usize::from(first & 0x7f);
        // Two bytes are 64 KiB, beyond the limits that PEM and TLS set; 0x80 alone is BER's indefinite form.
        let (digits, body) = after_first.split_at_checked(count).filter(|_| (1..=2).contains(&count))?;
        let length = digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit));
        let shortest = if count == 1 { 0x80 } else { 0x100 };
        (Some(length).filter(|length| *length >= shortest)?, body)
    };
    let (content, rest) = body.split_at_checked(length)?;
    let whole = input.get(..input.len() - rest.len())?;
    Some((Element { tag, content, whole }, rest))
}

/// The only element of `input`: nothing may follow it.
pub(super) fn only(input: &[u8]) -> Option<Element<'_>> {
    read(input).filter(|(_, rest)| rest.is_empty()).map(|(element, _)| element)
}

/// All elements of a constructed element's content.
pub(super) fn children(mut content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let (element, rest) = read(content)?;
        found.push(element);
        content = rest;
    }
    Some(found)
}

/// Whether `input` is exactly one element whose structure is DER all the way down.
pub(super) fn well_formed(input: &[u8]) -> bool {
    only(input).is_some_and(|element| walk(element, DEEPEST))
}

fn walk(element: Element<'_>, depth: usize) -> bool {
    if element.tag & CONSTRUCTED == 0 {
        return true;
    }
    depth > 0
        && children(element.content).is_some_and(|inner| inner.into_iter().all(|element| walk(element, depth - 1)))
}

/// An element of this tag around the parts.
pub(super) fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let bytes = length.to_be_bytes();
    let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut out = vec![tag];
    match (length, u8::try_from(length), u8::try_from(significant.len())) {
        (..0x80, Ok(short), _) => out.push(short),
        (_, _, Ok(count)) => {
            out.push(0x80 | count);
            out.extend(significant);
        }
        // A length of more than 255 bytes does not exist.
        _ => {}
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// A SEQUENCE of the parts.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    wrap(SEQUENCE, parts)
}

/// A context-specific constructed element, as EXPLICIT tagging makes it.
pub(super) fn explicit(number: u8, inner: &[u8]) -> Vec<u8> {
    wrap(0xa0 | number, &[inner])
}

/// A BIT STRING of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    wrap(BIT_STRING, &[&[0], bytes])
}

/// A certificate's time: `UTCTime` before 2050, `GeneralizedTime` from then on (RFC 5280 4.1.2.5).
pub(super) fn time(moment: OffsetDateTime) -> Vec<u8> {
    let moment = moment.to_offset(time::UtcOffset::UTC);
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    let (hour, minute, second) = moment.to_hms();
    let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
    if (1950..2050).contains(&year) {
        wrap(UTC_TIME, &[format!("{:02}{rest}", year % 100).as_bytes()])
    } else {
        wrap(GENERALIZED_TIME, &[format!("{year:04}{rest}").as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn lengths_are_written_in_the_shortest_form_and_read_back() {
        for length in [0, 1, 127, 128, 255, 256, 40_000] {
            let whole = wrap(OCTET_STRING, &[&vec![7; length]]);
            assert_eq!(only(&whole).unwrap().content.len(), length);
            assert!(well_formed(&whole));
        }
    }

    #[test]
    fn bytes_left_over_anywhere_are_refused() {
        assert!(!well_formed(&[0x30, 0x00, 0x00]), "after the end");
        assert!(!well_formed(&[0x30, 0x03, 0x02, 0x01, 0x05, 0x00]), "after the end");
        assert!(!well_formed(&[0x30, 0x04, 0x02, 0x01, 0x05, 0x00]), "half an element inside");
        assert!(!well_formed(&[0x30, 0x81, 0x03, 0x02, 0x01, 0x05]), "long length for a short element");
        assert!(!well_formed(&[0x30, 0x80, 0x02, 0x01, 0x05, 0x00, 0x00]), "indefinite length");
        assert!(!well_formed(&[]), "nothing");
        assert!(well_formed(&[0x30, 0x03, 0x02, 0x01, 0x05]));
    }

    #[test]
    fn nesting_without_end_is_refused_and_not_followed() {
        let mut bomb = vec![0x30, 0x00];
        for _ in 0..2_000 {
            bomb = sequence(&[&bomb]);
        }
        assert!(!well_formed(&bomb));
    }

    #[test]
    fn years_choose_their_kind_of_time() {
        assert_eq!(time(datetime!(2049-12-31 23:59:59 UTC)), b"\x17\x0d491231235959Z");
        assert_eq!(time(datetime!(2050-01-01 0:00 UTC)), b"\x18\x0f20500101000000Z");
    }
}
