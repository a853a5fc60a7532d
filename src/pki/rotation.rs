//! Rotation: which changes of the trust map a dispatcher may ask for.
//!
//! **Invariant:** a dispatcher changes nothing but serials of its own id, never takes over one that belongs to another,
//! and always keeps one that it can come back with.

use super::revoked::RevocationList;
use super::trust::TrustMap;
use crate::wire::name::DispatcherId;
use crate::wire::rotate::Action;
use crate::wire::serial::Serial;

/// Most serials of one dispatcher. Two are in use during a rotation; without a limit one dispatcher could make the map
/// too large to be read.
pub const MOST: usize = 64;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The serial of the certificate that it showed.
    pub serial: Serial,
    /// The id that this serial stood for when it was judged.
    pub id: DispatcherId,
}

/// Why the map stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// The caller's own trust ended since it was judged.
    #[error("the serial of this request is trusted no more")]
    Stranger,
    /// Somebody else's, to be added.
    #[error("serial belongs to another dispatcher")]
    Taken,
    /// Somebody else's, to be removed.
    #[error("serial not owned by '{0}'")]
    NotOwned(DispatcherId),
    /// The caller would lock itself out.
    #[error("the last serial of '{0}' is not removed: add the next one first")]
    Last(DispatcherId),
    /// Too many.
    #[error("'{0}' has {MOST} serials, the most that one dispatcher can have: remove old ones first")]
    Full(DispatcherId),
}

/// Changes the map as it is now, or refuses. A serial that is there already, or gone already, is a success.
pub fn change(
    map: &mut TrustMap,
    revoked: &RevocationList,
    caller: &Caller,
    action: Action,
    serial: &Serial,
) -> Result<(), RotationError> {
    if map.get(&caller.serial) != Some(&caller.id) || revoked.contains(&caller.serial) {
        return Err(RotationError::Stranger);
    }
    match action {
        Action::Add => add(map, caller, serial),
        Action::Remove => remove(map, revoked, caller, serial),
    }
}

fn add(map: &mut TrustMap, caller: &Caller, serial: &Serial) -> Result<(), RotationError> {
    match map.get(serial) {
        Some(owner) if *owner == caller.id => return Ok(()),
        Some(_) => return Err(RotationError::Taken),
        None => {}
    }
    if map.iter().filter(|(_, id)| **id == caller.id).count() >= MOST {
        return Err(RotationError::Full(caller.id.clone()));
    }
    drop(map.insert(serial.clone(), caller.id.clone()));
    Ok(())
}

fn remove(map: &mut TrustMap, revoked: &RevocationList, caller: &Caller, serial: &Serial) -> Result<(), RotationError> {
    match map.get(serial) {
        None => return Ok(()),
        Some(owner) if *owner != caller.id => return Err(RotationError::NotOwned(caller.id.clone())),
        Some(_) => {}
    }
    // One that is revoked is no way back.
    let others = |(known, id): &(&Serial, &DispatcherId)| **id == caller.id && *known != serial;
    if !map.iter().filter(others).any(|(known, _)| !revoked.contains(known)) {
        return Err(RotationError::Last(caller.id.clone()));
    }
    drop(map.remove(serial));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn serial(text: &str) -> Serial {
        Serial::parse_hex(text).unwrap()
    }

    fn caller(text: &str, id: &str) -> Caller {
        Caller { serial: serial(text), id: DispatcherId::parse(id).unwrap() }
    }

    /// What becomes of the map when the dispatcher `main` asks with its serial `a1`.
    fn asked(map: &str, revoked: &str, action: Action, text: &str) -> Result<String, RotationError> {
        let (mut map, _) = TrustMap::parse(map);
        let (revoked, _) = RevocationList::parse(revoked);
        change(&mut map, &revoked, &caller("a1", "main"), action, &serial(text))?;
        Ok(map.iter().map(|(serial, id)| format!("{serial} {id},")).collect::<Vec<_>>().concat())
    }

    #[test]
    fn a_serial_is_added_and_removed_under_the_callers_id() {
        use Action::{Add, Remove};
        assert_eq!(asked("a1 main", "", Add, "B2").unwrap(), "a1 main,b2 main,");
        assert_eq!(asked("a1 main\nb2 main", "", Add, "b2").unwrap(), "a1 main,b2 main,");
        assert_eq!(asked("a1 main\nb2 main", "", Remove, "0b:2").unwrap(), "a1 main,");
        assert_eq!(asked("a1 main\nb2 main", "", Remove, "a1").unwrap(), "b2 main,");
        assert_eq!(asked("a1 main", "", Remove, "b2").unwrap(), "a1 main,");
    }

    #[test]
    fn anothers_serial_is_neither_taken_nor_removed() {
        let id = || DispatcherId::parse("main").unwrap();
        assert_eq!(asked("a1 main\nb2 other", "", Action::Add, "b2"), Err(RotationError::Taken));
        assert_eq!(asked("a1 main\nb2 other", "", Action::Remove, "b2"), Err(RotationError::NotOwned(id())));
    }

    #[test]
    fn the_last_serial_that_counts_stays() {
        let last = Err(RotationError::Last(DispatcherId::parse("main").unwrap()));
        assert_eq!(asked("a1 main\nb2 other", "", Action::Remove, "a1"), last);
        assert_eq!(asked("a1 main\nb2 main", "b2", Action::Remove, "a1"), last, "a revoked serial is no way back");
        assert_eq!(asked("a1 main\nb2 main", "b2", Action::Remove, "b2").unwrap(), "a1 main,");
    }

    #[test]
    fn a_caller_whose_trust_has_ended_changes_nothing() {
        for (map, revoked) in [("b2 main", ""), ("a1 other", ""), ("a1 main", "a1"), ("", "")] {
            assert_eq!(asked(map, revoked, Action::Add, "c3"), Err(RotationError::Stranger), "{map} {revoked}");
        }
    }

    #[test]
    fn one_dispatcher_cannot_fill_the_map() {
        let text = (1..=MOST).map(|number| format!("a{number} main\n")).collect::<Vec<_>>().concat();
        assert_eq!(asked(&text, "", Action::Add, "b2"), Err(RotationError::Full(caller("a1", "main").id)));
        assert!(asked(&text, "", Action::Add, "a2").is_ok());
        assert!(asked(&text, "", Action::Remove, "a2").is_ok());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_others_keep_theirs_and_the_caller_keeps_one(
            steps in proptest::collection::vec((any::<bool>(), 1_u32..8, 1_u32..8, any::<bool>()), 0..30)
        ) {
            let (mut map, _) = TrustMap::parse("1 main\n2 other\n");
            let none = RevocationList::default();
            for (add, from, to, main) in steps {
                let caller = caller(&format!("{from:x}"), if main { "main" } else { "other" });
                let before = map.clone();
                let action = if add { Action::Add } else { Action::Remove };
                let _ = change(&mut map, &none, &caller, action, &serial(&format!("{to:x}")));
                let of_others = |map: &TrustMap| -> Vec<_> {
                    map.iter().filter(|(_, id)| **id != caller.id).map(|(serial, id)| (serial.clone(), id.clone())).collect()
                };
                prop_assert_eq!(of_others(&before), of_others(&map));
                for id in ["main", "other"] {
                    prop_assert!(map.iter().any(|(_, known)| known.as_str() == id));
                }
            }
        }
    }
}
