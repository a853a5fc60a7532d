//! What this thread's connection is about: the ticket that rustls has just read, and the secret that goes with it; or the
//! session that is being restored.
//!
//! rustls works on one connection from the first byte of a record to the session that it hands to the store, without
//! leaving the thread. So what was seen on the way belongs to that session.

use std::cell::RefCell;

use rustls::crypto::tls13::OkmBlock;

use super::session::Reader;

/// `NewSessionTicket` (RFC 8446 4).
const NEW_SESSION_TICKET: u8 = 4;

/// A ticket as it came in (RFC 8446 4.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewTicket {
    /// Seconds for which it may be used.
    pub(super) lifetime: u32,
    /// What hides its age from who listens.
    pub(super) age_add: u32,
    nonce: Vec<u8>,
    /// What the server will recognise.
    pub(super) ticket: Vec<u8>,
}

/// What takes the place of what the two ends of a handshake in memory would agree on.
#[derive(Clone)]
pub(super) struct Restored {
    /// The secret of the ticket.
    pub(super) psk: OkmBlock,
    /// What to add to the age of the session in memory, which is zero, to get the obfuscated age of the real one.
    pub(super) age_add: u32,
}

#[derive(Default)]
struct Watch {
    seen: Option<(NewTicket, Option<OkmBlock>)>,
    restoring: Option<Restored>,
}

thread_local! {
    static WATCH: RefCell<Watch> = RefCell::default();
}

/// A handshake message was decrypted. A ticket that does not fill its record alone is left to rustls.
pub(super) fn message(record: &[u8]) {
    if record.first() == Some(&NEW_SESSION_TICKET) {
        let seen = parse(record).map(|ticket| (ticket, None));
        WATCH.with_borrow_mut(|watch| watch.seen = seen);
    }
}

/// A ticket's secret is wanted, that of the nonce: what `derive` gives, or the one that is being restored.
pub(super) fn psk(nonce: &[u8], derive: impl FnOnce() -> OkmBlock) -> OkmBlock {
    WATCH.with_borrow_mut(|watch| {
        if let Some(restored) = &watch.restoring {
            return restored.psk.clone();
        }
        let psk = derive();
        if let Some((_, place)) = watch.seen.as_mut().filter(|(ticket, _)| ticket.nonce == nonce) {
            *place = Some(psk.clone());
        }
        psk
    })
}

/// The last ticket with its secret, once.
pub(super) fn take() -> Option<(NewTicket, OkmBlock)> {
    let (ticket, psk) = WATCH.with_borrow_mut(|watch| watch.seen.take())?;
    Some((ticket, psk?))
}

/// Does `work` with what it should find in the place of its own secret.
pub(super) fn restoring<T>(restored: Restored, work: impl FnOnce() -> T) -> T {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            WATCH.with_borrow_mut(|watch| *watch = Watch::default());
        }
    }
    WATCH.with_borrow_mut(|watch| watch.restoring = Some(restored));
    let _over = Over;
    work()
}

/// The age to add for the session that is being restored.
pub(super) fn age_add() -> Option<u32> {
    WATCH.with_borrow(|watch| watch.restoring.as_ref().map(|restored| restored.age_add))
}

fn parse(record: &[u8]) -> Option<NewTicket> {
    let mut rest = Reader::new(record.get(1..)?);
    let mut body = Reader::new(rest.vector(3)?);
    if !rest.is_empty() {
        return None;
    }
    let (lifetime, age_add) = (body.u32()?, body.u32()?);
    let (nonce, ticket) = (body.vector(1)?.to_vec(), body.vector(2)?.to_vec());
    // No extension of a ticket concerns who sends no early data.
    body.vector(2)?;
    let useful = body.is_empty() && lifetime > 0 && !ticket.is_empty();
    useful.then_some(NewTicket { lifetime, age_add, nonce, ticket })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lifetime 7200, `age_add` 5, nonce `n`, ticket `tick`, no extensions.
    const MESSAGE: &[u8] = b"\x04\x00\x00\x12\x00\x00\x1c\x20\x00\x00\x00\x05\x01n\x00\x04tick\x00\x00";

    fn block(byte: u8) -> OkmBlock {
        OkmBlock::new(&[byte; 48])
    }

    #[test]
    fn a_ticket_is_taken_once_and_with_the_secret_of_its_own_nonce() {
        assert!(take().is_none());
        message(MESSAGE);
        assert_eq!(psk(b"other", || block(1)).as_ref(), block(1).as_ref());
        assert!(take().is_none(), "no secret of this nonce");
        message(MESSAGE);
        psk(b"n", || block(2));
        let (ticket, secret) = take().unwrap();
        assert_eq!((ticket.lifetime, ticket.age_add, &ticket.ticket[..]), (7200, 5, &b"tick"[..]));
        assert_eq!(secret.as_ref(), block(2).as_ref());
        assert!(take().is_none());
    }

    #[test]
    fn a_ticket_that_is_not_whole_or_not_alone_or_not_useful_is_passed_over() {
        for length in 0..MESSAGE.len() {
            assert!(parse(&MESSAGE[..length]).is_none(), "{length}");
        }
        assert!(parse(&[MESSAGE, MESSAGE].concat()).is_none());
        let mut useless = MESSAGE.to_vec();
        useless[4..8].fill(0);
        assert!(parse(&useless).is_none(), "a lifetime of nothing");
    }

    #[test]
    fn only_what_is_restored_finds_the_restored_secret() {
        let inside = restoring(Restored { psk: block(9), age_add: 7 }, || (psk(b"n", || block(1)), age_add()));
        assert_eq!((inside.0.as_ref(), inside.1), (block(9).as_ref(), Some(7)));
        assert_eq!(psk(b"n", || block(1)).as_ref(), block(1).as_ref());
        assert_eq!(age_add(), None);
    }
}
