//! A session as it is kept between two processes, and its form in bytes.

use std::fmt;

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::CertificateDer;

/// Leads the form, so that a later one is not mistaken for it.
const FORM: u8 = 1;
/// How long a session is kept at most, in milliseconds, whatever its ticket allows.
const LONGEST: u64 = 3_600_000;
/// How long one full handshake is good for, in milliseconds: after that both ends prove their keys again.
const PROOF: u64 = 12 * 3_600_000;

/// All that resuming takes. Shown without its secret.
#[derive(Clone)]
pub(super) struct Session {
    /// The cipher suite's number.
    pub(super) suite: u16,
    /// The ticket's secret.
    pub(super) psk: OkmBlock,
    /// What the server will recognise.
    pub(super) ticket: Vec<u8>,
    /// Seconds for which the ticket may be used.
    pub(super) lifetime: u32,
    /// What hides its age from who listens (RFC 8446 4.6.1).
    pub(super) age_add: u32,
    /// When it was received, in milliseconds since 1970.
    pub(super) obtained: u64,
    /// When both ends last proved to hold their keys, likewise.
    pub(super) proven: u64,
    /// The server's certificates.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Of a session that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Milliseconds since its ticket came.
    pub(super) age: u32,
    /// Seconds for which it may still be used, at least one.
    pub(super) lifetime: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("suite", &self.suite).field("obtained", &self.obtained).finish_non_exhaustive()
    }
}

impl Session {
    /// What is left of it; `None` where it may not be used any more, or not yet: a clock was put back.
    pub(super) fn left(&self, now: u64) -> Option<Left> {
        let age = now.checked_sub(self.obtained)?;
        let most = u64::from(self.lifetime).saturating_mul(1000).min(LONGEST);
        let left = most.checked_sub(age).filter(|left| *left > 0)?;
        let lifetime = u32::try_from(left.div_ceil(1000)).ok()?;
        let left = Left { age: u32::try_from(age).ok()?, lifetime };
        (now.checked_sub(self.proven)? < PROOF).then_some(left)
    }

    /// The form in bytes; `None` where a part is too long for it.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![FORM];
        bytes.extend(self.suite.to_be_bytes());
        bytes.extend(self.lifetime.to_be_bytes());
        bytes.extend(self.age_add.to_be_bytes());
        bytes.extend(self.obtained.to_be_bytes());
        bytes.extend(self.proven.to_be_bytes());
        for part in [self.psk.as_ref(), &self.ticket].into_iter().chain(self.chain.iter().map(AsRef::as_ref)) {
            bytes.extend(u16::try_from(part.len()).ok()?.to_be_bytes());
            bytes.extend(part);
        }
        Some(bytes)
    }

    /// Reads the form back.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (form, rest) = bytes.split_first()?;
        let mut rest = Reader::new(rest);
        if *form != FORM {
            return None;
        }
        let suite = u16::try_from(rest.number(2)?).ok()?;
        let (lifetime, age_add) = (rest.u32()?, rest.u32()?);
        let (obtained, proven) = (rest.number(8)?, rest.number(8)?);
        let psk = rest.vector(2).filter(|psk| (1..=OkmBlock::MAX_LEN).contains(&psk.len())).map(OkmBlock::new)?;
        let ticket = rest.vector(2)?.to_vec();
        let mut chain = Vec::new();
        while !rest.is_empty() {
            chain.push(CertificateDer::from(rest.vector(2)?.to_vec()));
        }
        Some(Self { suite, psk, ticket, lifetime, age_add, obtained, proven, chain })
    }
}

/// Numbers and vectors in network order, as TLS writes them (RFC 8446 3).
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.number(4)?).ok()
    }

    /// A vector whose length stands before it, in `width` bytes.
    pub(super) fn vector(&mut self, width: usize) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(width)?).ok()?;
        self.bytes(length)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        Some(self.bytes(width)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            suite: 0x1302,
            psk: OkmBlock::new(&[7; 48]),
            ticket: b"ticket".to_vec(),
            lifetime: 60,
            age_add: 5,
            obtained: 1_000_000,
            proven: 990_000,
            chain: vec![CertificateDer::from(b"leaf".to_vec()), CertificateDer::from(b"more".to_vec())],
        }
    }

    #[test]
    fn a_session_comes_back_as_it_was_and_no_part_of_it_does() {
        let bytes = session().encode().unwrap();
        let back = Session::decode(&bytes).unwrap();
        assert_eq!(back.encode().unwrap(), bytes);
        assert_eq!((back.suite, back.lifetime, back.age_add), (0x1302, 60, 5));
        assert_eq!((back.obtained, back.proven, back.chain.len()), (1_000_000, 990_000, 2));
        assert_eq!((back.psk.as_ref(), &back.ticket[..]), (&[7; 48][..], &b"ticket"[..]));
        let whole = [bytes.len() - 6, bytes.len() - 12];
        for length in (0..bytes.len()).filter(|length| !whole.contains(length)) {
            assert!(Session::decode(&bytes[..length]).is_none(), "{length}");
        }
        assert!(Session::decode(&[&[2], &bytes[1..]].concat()).is_none(), "another form");
        assert!(!format!("{back:?}").contains("7, 7"), "the secret is not shown");
    }

    #[test]
    fn a_session_is_used_within_its_lifetime_within_an_hour_and_within_twelve_of_the_proof() {
        let session = session();
        let left = |age, lifetime| Some(Left { age, lifetime });
        assert_eq!((session.left(1_000_000), session.left(1_059_999)), (left(0, 60), left(59_999, 1)));
        assert_eq!((session.left(999_999), session.left(1_060_000)), (None, None));
        let long = Session { lifetime: u32::MAX, ..session.clone() };
        assert_eq!(long.left(1_000_000 + LONGEST), None);
        assert_eq!(long.left(1_000_000 + LONGEST - 1).map(|left| left.lifetime), Some(1));
        let late = Session { obtained: PROOF - 1, proven: 0, ..session };
        assert_eq!((late.left(PROOF), late.left(PROOF - 1)), (None, left(0, 60)));
    }
}
